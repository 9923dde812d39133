//! Folders and files of data lakes, and hostile files.

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;

use parquet::basic::{Compression, ZstdLevel};

use super::*;

/// The error class of each listed file, sorted by key; empty for a readable file.
async fn classes(archive: &Archive, prefix: &str) -> Vec<(String, &'static str)> {
    let mut classes = Vec::new();
    for file in archive.list(prefix).await.unwrap() {
        let key = file.key.clone();
        let shape = archive.layout(&file, &needs()).await;
        let read = read(archive, &range(file, 0, 1)).await;
        let class = match (shape, read) {
            (Ok(_), Ok(_)) => "",
            (Err(error), Err(again)) => {
                assert_eq!(error, again, "planning and reading report the same error");
                class(error)
            }
            (Ok(_), Err(error)) => class(error),
            (Err(error), Ok(_)) => panic!("{error}, but the file can be read"),
        };
        classes.push((key, class));
    }
    classes
}

fn owned(classes: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    classes.iter().map(|(key, class)| ((*key).to_owned(), *class)).collect()
}

#[tokio::test]
async fn one_file_that_cannot_be_read_is_no_fault_of_the_others() {
    let good = bytes(columns(3));
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret.parquet"), &good).unwrap();
    let (folder, archive) = archive(&[
        ("t/l.parquet", &good),
        ("t/a\\b.parquet", &good),
        ("t/_delta_log/1.checkpoint.parquet", &good),
        ("t/_temporary/0/2.parquet", &good),
        ("t/.3.parquet", &good),
        ("t/_day=1/4.parquet", &good),
    ]);
    let place = folder.path().join("t");
    symlink("nowhere", place.join("gone.parquet")).unwrap();
    symlink(outside.path().join("secret.parquet"), place.join("out.parquet")).unwrap();
    fs::write(place.join(std::ffi::OsString::from_vec(b"caf\xe9.parquet".to_vec())), &good).unwrap();
    assert_eq!(
        classes(&archive, "t/").await,
        owned(&[
            ("t/_day=1/4.parquet", ""),
            ("t/a\\b.parquet", "refused_key"),
            ("t/caf\u{fffd}.parquet", "unreadable_file"),
            ("t/gone.parquet", "unreadable_file"),
            ("t/l.parquet", ""),
            ("t/out.parquet", "refused_key"),
        ])
    );
    assert_eq!(
        classes(&archive, "t/_delta_log/").await,
        owned(&[("t/_delta_log/1.checkpoint.parquet", "")]),
        "the prefix names the folder"
    );
    assert_eq!(archive.list("nothing/").await.unwrap(), []);
    let file = archive.list("t/g").await.unwrap().remove(0);
    let fault = fault(archive.layout(&file, &needs()).await.unwrap_err());
    assert!(fault.reason.contains("it is a broken link"), "{fault}");
    fs::remove_file(place.join("gone.parquet")).unwrap();
    fs::write(place.join("gone.parquet"), &good).unwrap();
    assert_eq!(class(archive.layout(&file, &needs()).await.unwrap_err()), "source_changed", "it was fixed since");
}

#[tokio::test]
async fn a_codec_that_is_not_built_in_is_no_damage() {
    let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parquet/brotli.parquet")).unwrap();
    let (_folder, archive) = archive(&[("x.parquet", &file)]);
    let file = archive.list("").await.unwrap().remove(0);
    let fault = fault(archive.layout(&file, &needs()).await.unwrap_err());
    assert_eq!(fault.class, "unsupported_file");
    assert!(fault.reason.contains("column `text` is compressed with BROTLI, which is not supported"), "{fault}");
    assert!(fault.reason.contains("SNAPPY, GZIP, LZ4, LZ4_RAW and ZSTD"), "{fault}");
}

#[tokio::test]
async fn a_page_that_would_not_fit_is_refused_before_it_is_unpacked() {
    let text = "a".repeat(130 << 20);
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(StringArray::from(vec!["a"])) as ArrayRef),
        ("text", Arc::new(StringArray::from(vec![text.as_str()])) as ArrayRef),
    ])
    .unwrap();
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(zstd).set_dictionary_enabled(false).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    let file = writer.into_inner().unwrap();
    assert!(file.len() < 1 << 20, "the file must be small: {}", file.len());
    let (_folder, archive) = archive(&[("x.parquet", &file)]);
    let file = archive.list("").await.unwrap().remove(0);
    assert_eq!(archive.layout(&file, &needs()).await.unwrap().rows(), 1, "the footer alone is valid");
    let fault = fault(read(&archive, &range(file, 0, 1)).await.unwrap_err());
    assert_eq!(fault.class, "unsupported_file");
    assert!(fault.reason.contains("a page of column `text` has 1363") && fault.reason.contains("smaller pages"), "{fault}");
}

#[tokio::test]
async fn columns_nested_without_end_do_not_end_the_process() {
    let footer = footer::tests::nested(100_000);
    let file = [&b"PAR1"[..], &footer, &(footer.len() as u32).to_le_bytes(), b"PAR1"].concat();
    let (_folder, archive) = archive(&[("x.parquet", &file)]);
    let file = archive.list("").await.unwrap().remove(0);
    let fault = fault(archive.layout(&file, &needs()).await.unwrap_err());
    assert!(fault.class == "corrupt_file" && fault.reason.contains("nested deeper than 256 levels"), "{fault}");
}

#[tokio::test]
async fn an_encrypted_file_is_no_damage() {
    let (_folder, archive) = archive(&[("x.parquet", b"PARE....\x04\0\0\0PARE")]);
    let file = archive.list("").await.unwrap().remove(0);
    assert_eq!(class(archive.layout(&file, &needs()).await.unwrap_err()), "unsupported_file");
}

#[tokio::test]
async fn lists_that_a_few_bytes_stand_for_are_not_unrolled() {
    use arrow::array::{DictionaryArray, Int32Array, ListArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{Field, Int32Type};

    let file = |values: ArrayRef, count: i32| {
        let keys = Int32Array::from(vec![0; count as usize]);
        let items = Arc::new(DictionaryArray::<Int32Type>::try_new(keys, values).unwrap()) as ArrayRef;
        let field = Arc::new(Field::new_list_field(items.data_type().clone(), true));
        let text = ListArray::new(field, OffsetBuffer::new(vec![0, count].into()), items, None);
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::new(StringArray::from(vec!["a"])) as ArrayRef),
            ("text", Arc::new(text) as ArrayRef),
        ])
        .unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    };
    let many = file(Arc::new(Int32Array::from(vec![7])), 10_000_000);
    let large = file(Arc::new(StringArray::from(vec!["a".repeat(1 << 20)])), 300);
    assert!(many.len() < 1 << 16 && large.len() < 2 << 20, "{} and {}", many.len(), large.len());
    let (_folder, archive) = archive(&[("large.parquet", &large), ("many.parquet", &many)]);
    let files = archive.list("").await.unwrap();
    let fault = fault(read(&archive, &range(files[1].clone(), 0, 1)).await.unwrap_err());
    assert!(fault.class == "unsupported_file" && fault.reason.contains("has 10000000 values in 1 rows"), "{fault}");
    let rows = read(&archive, &range(files[0].clone(), 0, 1)).await.unwrap();
    let bytes = rows[0].payload.as_ref().unwrap().len();
    assert!((64 << 20..67 << 20).contains(&bytes), "a row of {bytes} bytes was written");
}
