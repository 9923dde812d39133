//! Files that others write: Parquet of a dataset, and heads that were trained elsewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int32Builder, ListBuilder, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use prometheus::IntGauge;
use proptest::prelude::*;
use serde_json::json;
use tidemill::config::DatasetConfig;
use tidemill::record::Partition;
use tidemill::source::{Archive, InFlight, RequestedColumns, RowRange};
use tidemill::task::linear_head::LinearHead;
use tokio::runtime::Builder;
use tokio::sync::mpsc::unbounded_channel;

use super::Session;
use super::mutations::{Input, Seed, damaged, edited};

const ROWS: i32 = 300;

/// A file with columns of all shapes.
fn parquet(compression: Compression) -> Vec<u8> {
    let texts = |stem: &str| Arc::new(StringArray::from_iter_values((0..ROWS).map(|n| format!("{stem} {n}")))) as ArrayRef;
    let mut lists = ListBuilder::new(Int32Builder::new());
    for n in 0..ROWS {
        lists.append_value((0..n % 5).map(Some));
    }
    let inner = Arc::new(Field::new("inner", DataType::Utf8, true));
    let nested = Arc::new(StructArray::from(vec![(inner, texts("inner"))])) as ArrayRef;
    let prices = Arc::new(Float64Array::from_iter((0..ROWS).map(|n| (n % 3 > 0).then_some(f64::from(n))))) as ArrayRef;
    let columns = [
        ("id", texts("d")),
        ("text", texts("text")),
        ("price", prices),
        ("list", Arc::new(lists.finish()) as ArrayRef),
        ("deep", nested),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, values)| {
        let is_nullable = values.null_count() > 0;
        (name, values, is_nullable)
    }));
    let batch = batch.unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(100)).set_compression(compression).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

pub fn parquet_files(session: &mut Session) {
    // The decoder's panics are caught and are the file's fault.
    session.tolerates_caught_panics = true;
    let mut seeds = Vec::new();
    for (name, compression) in
        [("plain", Compression::UNCOMPRESSED), ("zstd", Compression::ZSTD(ZstdLevel::default())), ("snappy", Compression::SNAPPY)]
    {
        let bytes = parquet(compression);
        let length = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap()) as usize;
        let footer = bytes.len() - 8 - length;
        seeds.push(Seed::new(name, bytes.clone()).within(footer..bytes.len()));
        seeds.push(Seed::new(name, bytes).within(0..footer));
    }
    fs::create_dir_all("archive").unwrap();
    let archive = Archive::open("archive", &DatasetConfig::local(Path::new("archive"))).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let columns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let needs = RequestedColumns {
        id: "id".into(),
        text: columns(&["text"]),
        metadata: columns(&["list", "deep", "price"]),
        ..RequestedColumns::default()
    };
    session.explore(&damaged(seeds, &["PAR1"]), |input| {
        fs::write("archive/x.parquet", &input.bytes).unwrap();
        runtime.block_on(async {
            let file = archive.list("").await.unwrap().remove(0);
            let Ok(layout) = archive.layout(&file, &needs).await else { return };
            let (sender, mut receiver) = unbounded_channel();
            let in_flight = InFlight::new(1 << 30, IntGauge::new("fuzz", "fuzz").unwrap());
            let partition = Partition { topic: "job:j".into(), number: 3 };
            let range = RowRange {
                file,
                partition,
                from: 0,
                to: layout.rows().min(1_000),
                wanted: None,
                window: None,
                needs: needs.clone(),
            };
            drop(archive.deliver(&range, &sender, &in_flight, &|| false).await);
            drop(sender);
            while receiver.recv().await.is_some() {}
        });
        Ok(())
    });
}

/// A safetensors file of that header and so many bytes of data.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

pub fn linear_heads(session: &mut Session) {
    let about = json!({"format": "tidemill-head-1", "labels": ["a", "b"], "multi": false, "model": "m", "revision": "r", "temperature": 1.5});
    let header = json!({
        "__metadata__": {"tidemill": about.to_string()},
        "weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "bias": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]},
    });
    let data = [0_u8; 32];
    let whole = safetensors(&header.to_string(), &data);
    LinearHead::from_bytes(&whole).unwrap_or_else(|error| panic!("the seed is no head: {error:#}"));
    let keys = &["dtype", "shape", "data_offsets", "weight", "bias", "__metadata__", "tidemill", "F64", "BF16"];
    // An edited header with a length that fits it, and bytes that are damaged anywhere.
    let headers = edited(vec![("header".to_owned(), header)], keys)
        .prop_map(move |(subject, header)| Input { subject, bytes: safetensors(&header.to_string(), &data) });
    let inputs = prop_oneof![headers, damaged(vec![Seed::new("bytes", whole)], &["[", "{\"a\":"])];
    session.explore(&inputs, |input| {
        drop(LinearHead::from_bytes(&input.bytes));
        Ok(())
    });
}
