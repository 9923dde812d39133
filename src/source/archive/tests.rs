//! Valid, changed and hostile files.

mod lake;
mod values;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use prometheus::IntGauge;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::mpsc::unbounded_channel;

use super::*;
use crate::record::{Partition, Record};
use crate::source::InFlight;

const ROWS: i64 = 1_000;
const GROUP: usize = 300;

fn needs() -> RequestedColumns {
    RequestedColumns { id: "id".into(), text: BTreeSet::from(["text".to_owned()]), ..RequestedColumns::default() }
}

fn columns(rows: i64) -> Vec<(&'static str, ArrayRef)> {
    let numbers = || 0..rows;
    vec![
        ("id", Arc::new(StringArray::from_iter_values(numbers().map(|n| format!("d{n}")))) as ArrayRef),
        ("text", Arc::new(StringArray::from_iter_values(numbers().map(|n| format!("text \"{n}\"\nand more")))) as ArrayRef),
        ("price", Arc::new(Float64Array::from_iter_values(numbers().map(|n| n as f64))) as ArrayRef),
        ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(numbers().map(|n| n * 1_000_000))) as ArrayRef),
    ]
}

fn bytes(columns: Vec<(&'static str, ArrayRef)>) -> Vec<u8> {
    let nullable = columns.into_iter().map(|(name, values)| (name, values, true));
    let batch = RecordBatch::try_from_iter_with_nullable(nullable).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(GROUP)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn archive(files: &[(&str, &[u8])]) -> (TempDir, Archive) {
    let folder = TempDir::new().unwrap();
    for (key, bytes) in files {
        let path = folder.path().join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let archive = Archive::open("archive", &DatasetConfig::local(folder.path())).unwrap();
    (folder, archive)
}

fn range(file: ArchiveFile, from: i64, to: i64) -> RowRange {
    let partition = Partition { topic: "job:j".into(), number: 3 };
    RowRange { file, partition, from, to, wanted: None, window: None, needs: needs() }
}

async fn read(archive: &Archive, range: &RowRange) -> Result<Vec<Record>, ArchiveError> {
    let (sender, mut receiver) = unbounded_channel();
    let in_flight = InFlight::new(1 << 30, IntGauge::new("test", "test").unwrap());
    archive.deliver(range, &sender, &in_flight, &|| false).await?;
    drop(sender);
    let mut records = Vec::new();
    while let Some(delivery) = receiver.recv().await {
        records.push(delivery.record);
    }
    Ok(records)
}

fn fault(error: ArchiveError) -> UnitFault {
    match error {
        ArchiveError::Fault(fault) => fault,
        ArchiveError::Unavailable(failure) => panic!("expected a fault of the file, got {failure}"),
    }
}

fn class(error: ArchiveError) -> &'static str {
    fault(error).class
}

#[tokio::test]
async fn rows_come_out_in_order_under_their_numbers() {
    let (_folder, archive) = archive(&[("a/x.parquet", &bytes(columns(ROWS)))]);
    let file = archive.list("a/").await.unwrap().remove(0);
    assert_eq!(archive.layout(&file, &needs()).await.unwrap().row_groups, [300, 300, 300, 100]);
    for (from, to) in [(0, ROWS), (0, 1), (299, 301), (310, 590), (999, 1_000)] {
        let records = read(&archive, &range(file.clone(), from, to)).await.unwrap();
        let offsets: Vec<i64> = records.iter().map(|record| record.place.offset).collect();
        assert_eq!(offsets, (from..to).collect::<Vec<_>>());
        for record in records {
            let fields: serde_json::Value = serde_json::from_slice(&record.payload.unwrap()).unwrap();
            let n = record.place.offset;
            assert_eq!(fields["id"], format!("d{n}"));
            assert_eq!(fields["text"], format!("text \"{n}\"\nand more"));
            assert_eq!(fields["price"], n as f64);
        }
    }
}

#[tokio::test]
async fn a_sample_and_a_window_leave_the_other_rows_out() {
    let (_folder, archive) = archive(&[("x.parquet", &bytes(columns(ROWS)))]);
    let file = archive.list("").await.unwrap().remove(0);
    let offsets = |records: Vec<Record>| records.iter().map(|record| record.place.offset).collect::<Vec<_>>();
    let sampled = RowRange { wanted: Some(vec![3, 299, 300, 301, 999]), ..range(file.clone(), 2, 999) };
    assert_eq!(offsets(read(&archive, &sampled).await.unwrap()), [3, 299, 300, 301]);
    let window = Some(TimeWindow { column: "at".into(), since: 10_000_000, until: 13_000_000 });
    assert_eq!(offsets(read(&archive, &RowRange { window, ..range(file, 0, ROWS) }).await.unwrap()), [10, 11, 12]);
}

#[tokio::test]
async fn a_file_that_changed_since_it_was_planned_is_not_read() {
    let (folder, archive) = archive(&[("x.parquet", &bytes(columns(ROWS)))]);
    let file = archive.list("").await.unwrap().remove(0);
    fs::write(folder.path().join("x.parquet"), bytes(columns(ROWS + 1))).unwrap();
    assert_eq!(class(read(&archive, &range(file.clone(), 0, 10)).await.unwrap_err()), "source_changed");
    fs::remove_file(folder.path().join("x.parquet")).unwrap();
    assert_eq!(class(read(&archive, &range(file, 0, 10)).await.unwrap_err()), "source_changed");
}

#[tokio::test]
async fn columns_that_are_needed_must_fit_and_others_do_not_matter() {
    let mut wide = columns(10);
    wide.push(("more", Arc::new(Int64Array::from_iter_values(0..10))));
    let without_text: Vec<_> = columns(10).into_iter().filter(|(name, _)| *name != "text").collect();
    let mut retyped = columns(10);
    retyped[0].1 = Arc::new(Float64Array::from_iter_values((0..10).map(f64::from)));
    let files = [("wide.parquet", wide), ("less.parquet", without_text), ("other.parquet", retyped)];
    let written: Vec<(&str, Vec<u8>)> = files.into_iter().map(|(key, columns)| (key, bytes(columns))).collect();
    let given: Vec<(&str, &[u8])> = written.iter().map(|(key, bytes)| (*key, bytes.as_slice())).collect();
    let (_folder, archive) = archive(&given);
    let mut faults = Vec::new();
    for file in archive.list("").await.unwrap() {
        match read(&archive, &range(file, 0, 10)).await {
            Ok(records) => assert_eq!(records.len(), 10),
            Err(ArchiveError::Fault(fault)) => faults.push(fault.to_string()),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(faults.len(), 2);
    assert!(faults[0].starts_with("schema_mismatch: `less.parquet` of dataset `archive`: column `text`"), "{}", faults[0]);
    assert!(faults[1].contains("column `id` is Float64, but an id is text or an integer"), "{}", faults[1]);
}

#[tokio::test]
async fn no_key_leads_out_of_the_dataset() {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret.parquet"), bytes(columns(5))).unwrap();
    let (folder, archive) = archive(&[("in/x.parquet", &bytes(columns(5)))]);
    for key in ["../x.parquet", "/etc/passwd", "a/../../x", "s3://b/x", "in\\x"] {
        assert_eq!(class(archive.file(key).await.unwrap_err()), "refused_key", "{key}");
    }
    std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
    assert_eq!(class(archive.file("link/secret.parquet").await.unwrap_err()), "refused_key");
    assert_eq!(class(archive.list("link/").await.unwrap_err()), "refused_key");
    std::os::unix::fs::symlink(folder.path().join("in"), folder.path().join("alias")).unwrap();
    assert!(archive.file("alias/x.parquet").await.is_ok(), "a link within the dataset stays in it");
}

#[tokio::test]
async fn keys_with_odd_characters_are_the_files_of_that_name() {
    let file = bytes(columns(3));
    let (_folder, archive) = archive(&[("a b/ü%20#.parquet", &file), ("a b/plain.txt", b"x")]);
    let listed = archive.list("a b/").await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(read(&archive, &range(listed[0].clone(), 0, 3)).await.unwrap().len(), 3);
}

/// Reads a file with these bytes. Every error must be a fault of the file, and nothing may panic or hang.
async fn survives(bytes: &[u8], what: &str) {
    let (_folder, archive) = archive(&[("x.parquet", bytes)]);
    let file = archive.list("").await.unwrap().remove(0);
    let rows = match archive.layout(&file, &needs()).await {
        Ok(shape) => shape.rows(),
        Err(error) => {
            let class = class(error);
            assert!(["corrupt_file", "schema_mismatch", "unsupported_file"].contains(&class), "{what}: {class}");
            ROWS
        }
    };
    if let Err(error) = read(&archive, &range(file, 0, rows.clamp(1, 2 * ROWS))).await {
        let class = class(error);
        assert!(["corrupt_file", "schema_mismatch", "unsupported_file"].contains(&class), "{what}: {class}");
    }
}

#[tokio::test]
async fn a_file_cut_off_anywhere_fails_alone() {
    let whole = bytes(columns(ROWS));
    for length in (0..whole.len()).step_by(1024).chain(whole.len() - 64..whole.len()) {
        let (_folder, archive) = archive(&[("x.parquet", &whole[..length])]);
        let file = archive.list("").await.unwrap().remove(0);
        assert_eq!(class(archive.layout(&file, &needs()).await.unwrap_err()), "corrupt_file", "cut off at {length}");
        assert_eq!(class(read(&archive, &range(file, 0, ROWS)).await.unwrap_err()), "corrupt_file", "cut off at {length}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits_never_take_the_process_along(flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut file = bytes(columns(ROWS));
        for (index, bit) in &flips {
            let at = index.index(file.len());
            file[at] ^= 1 << bit;
        }
        runtime.block_on(survives(&file, "flipped"));
    }

    #[test]
    fn a_footer_of_noise_never_takes_the_process_along(noise in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut file = b"PAR1".to_vec();
        file.extend(&noise);
        file.extend((noise.len() as u32).to_le_bytes());
        file.extend(b"PAR1");
        runtime.block_on(survives(&file, "noise"));
    }
}

#[test]
fn what_is_no_dataset_is_refused_with_the_mend() {
    let error = |config: DatasetConfig| Archive::open("archive", &config).unwrap_err().to_string();
    assert!(error(DatasetConfig::local(Path::new("/nowhere/at/all"))).contains("correct `path`"));
    let bucket = |url: &str| DatasetConfig { url: Some(url.into()), ..DatasetConfig::default() };
    assert!(error(bucket("http://x")).contains("s3://bucket/prefix"));
    assert!(error(DatasetConfig { path: "x".into(), ..bucket("s3://b/p") }).contains("both set"));
    assert!(error(DatasetConfig { access_key_env: Some("X".into()), ..bucket("s3://b/p") }).contains("go together"));
    assert!(Archive::open("archive", &bucket("s3://b/p")).is_ok());
}
