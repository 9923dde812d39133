//! Documents of a file, as the records that a producer would send.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use crate::config::{ConfigError, DatasetConfig};
use crate::document::look_up;
use crate::metrics::METRICS;
use crate::record::Partition;
use crate::source::{Archive, ArchiveError, Delivery, InFlight, RequestedColumns, RowRange};

/// A record to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRecord {
    /// The document's id, if the payload has it: versions of one document must be in one partition.
    pub key: Option<String>,
    pub payload: Vec<u8>,
}

/// Reads the records of a file: each line of `.jsonl` unchanged, valid or not, or each row of `.parquet` as a backfill reads it.
pub struct InputReader {
    path: String,
    /// Fields that may have the id; the first that has one counts.
    id_fields: Vec<String>,
    records: InputSource,
}

enum InputSource {
    Lines(BufReader<File>),
    Rows { delivered: UnboundedReceiver<Delivery>, reader: Option<JoinHandle<Result<(), ArchiveError>>> },
}

/// The first bytes of text in other encodings than UTF-8.
const OTHER_ENCODINGS: [(&[u8], &str); 6] = [
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    // Without a byte-order mark: an object begins with a brace.
    (b"{\0", "UTF-16"),
    (b"\0{", "UTF-16"),
];
/// The byte-order mark of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Bytes of rows that are read ahead.
const READ_AHEAD_BYTES: usize = 8 << 20;

impl InputReader {
    /// Opens the file and checks that it can be an input, before anything else starts.
    ///
    /// # Errors
    /// If the file cannot be read, has another extension, or lacks columns that the pipeline needs.
    pub async fn open(path: &Path, needs: &RequestedColumns) -> Result<Self, ConfigError> {
        let shown = path.display();
        let refuse = |reason: String| ConfigError(format!("the input {shown} {reason}"));
        if !path.exists() {
            return Err(ConfigError(format!("there is no input {shown}; name a file with --input")));
        }
        if path.is_dir() {
            return Err(refuse("is a folder; name one of its files with --input".into()));
        }
        let records = match path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl" | "ndjson") => InputSource::Lines(lines(path).map_err(refuse)?),
            Some("parquet") => rows(path, needs).await.map_err(refuse)?,
            _ => return Err(refuse("is neither .jsonl nor .parquet".into())),
        };
        Ok(Self {
            path: shown.to_string(),
            id_fields: [needs.id.clone()].into_iter().chain(needs.deleted.clone()).collect(),
            records,
        })
    }

    /// The next record.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn next(&mut self) -> Result<Option<InputRecord>> {
        let payload = match &mut self.records {
            InputSource::Lines(file) => line(file).with_context(|| format!("cannot read {}", self.path))?,
            InputSource::Rows { delivered, reader } => match delivered.recv().await {
                Some(delivery) => delivery.record.payload.map(Vec::from),
                None => {
                    if let Some(reader) = reader.take() {
                        reader.await?.with_context(|| format!("cannot read {}", self.path))?;
                    }
                    None
                }
            },
        };
        Ok(payload.map(|payload| InputRecord { key: key(&payload, &self.id_fields), payload }))
    }

    /// The number and the size of the first line with more than `most` bytes. The size of a Parquet row is not known before it is
    /// read, so none is reported.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn too_long(&mut self, most: usize) -> Result<Option<(usize, usize)>> {
        let InputSource::Lines(file) = &mut self.records else { return Ok(None) };
        let start = file.stream_position()?;
        let (mut number, mut found) = (0, None);
        while let (None, Some(line)) = (found, line(file)?) {
            number += 1;
            found = (line.len() > most).then_some((number, line.len()));
        }
        file.seek(std::io::SeekFrom::Start(start))?;
        Ok(found)
    }
}

fn lines(path: &Path) -> Result<BufReader<File>, String> {
    let cannot = |error: std::io::Error| format!("cannot be opened: {error}");
    let mut file = BufReader::new(File::open(path).map_err(cannot)?);
    let mut first = Vec::new();
    file.by_ref().take(4).read_to_end(&mut first).map_err(cannot)?;
    if let Some((_, name)) = OTHER_ENCODINGS.iter().find(|(mark, _)| first.starts_with(mark)) {
        return Err(format!("is {name}; convert it to UTF-8, as with `iconv --from-code {name} --to-code UTF-8`"));
    }
    let mark = if first.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    file.seek(std::io::SeekFrom::Start(mark as u64)).map_err(cannot)?;
    Ok(file)
}

/// The next line that is not blank.
fn line(file: &mut BufReader<File>) -> std::io::Result<Option<Vec<u8>>> {
    loop {
        let mut line = Vec::new();
        if file.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        line.truncate(line.trim_ascii_end().len());
        if !line.trim_ascii().is_empty() {
            return Ok(Some(line));
        }
    }
}

async fn rows(path: &Path, needs: &RequestedColumns) -> Result<InputSource, String> {
    let place = path.canonicalize().map_err(|error| format!("cannot be opened: {error}"))?;
    let (Some(folder), Some(key)) = (place.parent(), place.file_name().and_then(|name| name.to_str())) else {
        return Err("has a name that is not UTF-8; rename it".into());
    };
    let cannot = |error: ArchiveError| format!("cannot be read: {error}");
    let archive = Archive::open("@input", &DatasetConfig::local(folder)).map_err(|error| error.0)?;
    let file = archive.file(key).await.map_err(cannot)?;
    let rows = archive.layout(&file, needs).await.map_err(cannot)?.rows();
    let partition = Partition { topic: "@input".into(), number: 0 };
    let range = RowRange { file, partition, from: 0, to: rows, wanted: None, window: None, needs: needs.clone() };
    let (records, delivered) = unbounded_channel();
    let in_flight = InFlight::new(READ_AHEAD_BYTES, METRICS.in_flight_bytes.with_label_values(&["@input"]));
    let reader = tokio::spawn(async move { archive.deliver(&range, &records, &in_flight, &|| false).await });
    Ok(InputSource::Rows { delivered, reader: Some(reader) })
}

fn key(payload: &[u8], id_fields: &[String]) -> Option<String> {
    let fields: Map<String, Value> = serde_json::from_slice(payload).ok()?;
    id_fields.iter().find_map(|field| match look_up(&fields, field)? {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    async fn read(path: &Path, id: &str) -> Vec<InputRecord> {
        let needs = RequestedColumns { id: id.into(), ..RequestedColumns::default() };
        let mut inputs = InputReader::open(path, &needs).await.unwrap();
        assert_eq!(inputs.too_long(1 << 20).unwrap(), None);
        let mut records = Vec::new();
        while let Some(record) = inputs.next().await.unwrap() {
            records.push(record);
        }
        records
    }

    async fn refused(name: &str, bytes: &[u8]) -> String {
        let (_folder, path) = file(name, bytes);
        InputReader::open(&path, &RequestedColumns { id: "id".into(), ..RequestedColumns::default() }).await.err().unwrap().0
    }

    #[tokio::test]
    async fn lines_are_sent_as_they_stand_and_keyed_where_they_name_a_document() {
        let (_folder, path) = file("input.jsonl", b"{\"a\":{\"id\":\"x\"}}\r\n\n{broken\n{\"a\":{\"id\":7}}\n\xff\xfe\n");
        let inputs = read(&path, "a.id").await;
        let keys: Vec<Option<&str>> = inputs.iter().map(|input| input.key.as_deref()).collect();
        assert_eq!(keys, [Some("x"), None, Some("7"), None]);
        assert_eq!(inputs[1].payload, b"{broken");
        assert_eq!(inputs[3].payload, b"\xff\xfe", "bytes that are not text are sent as well: the pipeline must handle them");
    }

    #[tokio::test]
    async fn a_delete_goes_where_the_versions_of_its_document_go() {
        let (_folder, path) = file("input.jsonl", b"{\"after\":{\"id\":2}}\n{\"after\":null,\"before\":{\"id\":2}}\n");
        let needs = RequestedColumns { id: "after.id".into(), deleted: Some("before.id".into()), ..RequestedColumns::default() };
        let mut inputs = InputReader::open(&path, &needs).await.unwrap();
        for _ in 0..2 {
            assert_eq!(inputs.next().await.unwrap().unwrap().key.as_deref(), Some("2"));
        }
    }

    #[tokio::test]
    async fn a_byte_order_mark_is_no_part_of_the_first_record() {
        let (_folder, path) = file("input.jsonl", b"\xef\xbb\xbf{\"id\":\"a\"}\r\n{\"id\":\"b\"}\r\n");
        let inputs = read(&path, "id").await;
        assert_eq!((inputs[0].key.as_deref(), inputs[0].payload.as_slice()), (Some("a"), &b"{\"id\":\"a\"}"[..]));
        assert_eq!(inputs.len(), 2);
    }

    #[tokio::test]
    async fn an_input_that_can_be_none_is_refused_by_name() {
        assert!(refused("input.csv", b"id,text").await.contains("input.csv is neither .jsonl nor .parquet"));
        assert!(refused("input.parquet", b"").await.contains("input.parquet cannot be read: corrupt_file"));
        for (bytes, name) in [(&b"\xff\xfe{\0"[..], "UTF-16"), (b"\0{\0\"", "UTF-16"), (b"\xff\xfe\0\0{\0\0\0", "UTF-32")] {
            let error = refused("input.jsonl", bytes).await;
            assert!(error.contains(&format!("is {name}; convert it to UTF-8")), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let error = |path: std::path::PathBuf| async move {
            InputReader::open(&path, &RequestedColumns::default()).await.err().unwrap().0
        };
        assert!(error(folder.path().to_owned()).await.contains("is a folder; name one of its files"));
        assert!(error(folder.path().join("none.jsonl")).await.contains("there is no input"));
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_known_before_anything_is_sent() {
        let (_folder, path) = file("input.jsonl", b"\n{\"id\":\"a\"}\n{\"id\":\"a\",\"text\":\"longer than that\"}\n");
        let mut inputs =
            InputReader::open(&path, &RequestedColumns { id: "id".into(), ..RequestedColumns::default() }).await.unwrap();
        assert_eq!(inputs.too_long(20).unwrap(), Some((2, 36)));
        assert_eq!(inputs.next().await.unwrap().unwrap().payload, b"{\"id\":\"a\"}", "reading still begins at the first record");
    }
}
