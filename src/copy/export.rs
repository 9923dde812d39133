//! Published copy as a file for other systems. Rows are read from the database in batches and passed on as they are read.
//!
//! | column | holds |
//! |---|---|
//! | `document_id`, `version`, `url`, `origin`, `approved_at`, `approved_by` | metadata of the version |
//! | one for each field of the schema | the field: a string unchanged, anything else as JSON that is safe inside a script element |
//!
//! A field that has the name of one of the first columns gets the prefix `copy.`.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use futures::stream::{self, Stream};
use jiff::Timestamp;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use crate::failure::{Component, Transient};
use crate::store::{CopyOrigin, PublishedCopy, Reader};

/// The number of rows that are read at a time, and that a Parquet row group has.
const BATCH_ROWS: i64 = 1_000;

/// The columns before those of the schema.
const METADATA_COLUMNS: [&str; 6] = ["document_id", "version", "url", "origin", "approved_at", "approved_by"];

/// Characters with which spreadsheets begin a formula.
const FORMULA_STARTS: [char; 10] = ['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠'];

/// The format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportFormat {
    /// Comma-separated values as in RFC 4180, in UTF-8
    Csv,
    /// Apache Parquet
    Parquet,
}

impl ExportFormat {
    /// The format of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "csv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// The media type of the exported file.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// The published copy of a pipeline, as the parts of a file.
pub(super) fn export(
    reader: Reader,
    pipeline: String,
    fields: Vec<String>,
    format: ExportFormat,
) -> impl Stream<Item = Result<Bytes, Transient>> + Send + 'static {
    let state = Some((Writer::new(format, fields), String::new()));
    let step = move |state: Option<(Writer, String)>| {
        let (reader, pipeline) = (reader.clone(), pipeline.clone());
        async move {
            let Some((mut writer, after)) = state else { return Ok(None) };
            let rows = reader.published_copy(&pipeline, &after, BATCH_ROWS).await?;
            let bytes = writer.rows(&rows)?;
            match rows.last() {
                Some(last) if rows.len() as i64 == BATCH_ROWS => {
                    let after = last.document_id.clone();
                    Ok(Some((bytes, Some((writer, after)))))
                }
                _ => {
                    let end = writer.end()?;
                    Ok(Some(([bytes, end].concat().into(), None)))
                }
            }
        }
    };
    stream::try_unfold(state, step)
}

/// Writes rows in one format, and returns the bytes of each batch.
enum Writer {
    Csv { fields: Vec<String>, has_header: bool },
    Parquet { fields: Vec<String>, schema: SchemaRef, buffer: Buffer, writer: Option<Box<ArrowWriter<Buffer>>> },
}

/// The buffer between the Parquet writer and the stream: bytes that are written and not yet passed on.
#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Writer {
    fn new(format: ExportFormat, fields: Vec<String>) -> Self {
        match format {
            ExportFormat::Csv => Self::Csv { fields, has_header: false },
            ExportFormat::Parquet => {
                let schema = schema(&fields);
                Self::Parquet { fields, schema, buffer: Buffer::default(), writer: None }
            }
        }
    }

    fn rows(&mut self, rows: &[PublishedCopy]) -> Result<Bytes, Transient> {
        match self {
            Self::Csv { fields, has_header } => {
                let mut text = String::new();
                if !*has_header {
                    let names: Vec<String> =
                        METADATA_COLUMNS.iter().map(|name| (*name).to_owned()).chain(fields.iter().map(|f| column(f))).collect();
                    line(&mut text, names.iter().map(|name| Some(name.as_str().into())));
                    *has_header = true;
                }
                for row in rows {
                    line(
                        &mut text,
                        metadata_cells(row).into_iter().chain(fields.iter().map(|field| cell(row.content.get(field)))),
                    );
                }
                Ok(text.into())
            }
            Self::Parquet { fields, schema, buffer, writer } => {
                if writer.is_none() {
                    let compressed = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
                    let new = ArrowWriter::try_new(buffer.clone(), schema.clone(), Some(compressed.build()))
                        .map_err(|e| write_error(&e))?;
                    *writer = Some(Box::new(new));
                }
                let Some(writer) = writer else { return Ok(Bytes::new()) };
                writer.write(&batch(schema, fields, rows).map_err(|e| write_error(&e))?).map_err(|e| write_error(&e))?;
                writer.flush().map_err(|e| write_error(&e))?;
                Ok(buffer.take())
            }
        }
    }

    fn end(&mut self) -> Result<Bytes, Transient> {
        match self {
            Self::Csv { .. } => Ok(Bytes::new()),
            Self::Parquet { buffer, writer, .. } => {
                if let Some(writer) = writer.take() {
                    writer.close().map_err(|e| write_error(&e))?;
                }
                Ok(buffer.take())
            }
        }
    }
}

/// A failure to write. No content of documents can cause it, so it is an error of this process.
fn write_error(error: &dyn std::fmt::Display) -> Transient {
    Transient::new(Component::Storage, format!("the export cannot be written: {error}"))
}

fn column(field: &str) -> String {
    if METADATA_COLUMNS.contains(&field) { format!("copy.{field}") } else { field.to_owned() }
}

fn metadata_cells(row: &PublishedCopy) -> [Option<String>; 6] {
    let approved = Timestamp::from_millisecond(row.approved_ms).map_or_else(|_| String::new(), |time| time.to_string());
    let origin = origin(row.origin).to_owned();
    [
        Some(row.document_id.clone()),
        Some(row.version.to_string()),
        Some(row.url.clone()),
        Some(origin),
        Some(approved),
        row.approved_by.clone(),
    ]
}

const fn origin(origin: CopyOrigin) -> &'static str {
    match origin {
        CopyOrigin::Generated => "generated",
        CopyOrigin::Edited => "edited",
    }
}

fn cell(value: Option<&Value>) -> Option<String> {
    match value {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => Some(script_json(other)),
    }
}

/// JSON that is safe inside a script element: nothing in it ends the element or means anything to HTML.
pub fn script_json(value: &Value) -> String {
    let json = value.to_string();
    let mut safe = String::with_capacity(json.len());
    // Outside of strings, JSON has none of these characters.
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => safe.push_str(&format!("\\u{:04x}", u32::from(character))),
            character => safe.push(character),
        }
    }
    safe
}

/// A line of CSV. An apostrophe before a cell keeps spreadsheets from reading it as a formula.
fn line(text: &mut String, cells: impl Iterator<Item = Option<String>>) {
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            text.push(',');
        }
        let Some(cell) = cell else { continue };
        let guard = if cell.starts_with(FORMULA_STARTS) { "'" } else { "" };
        text.push_str(&format!("\"{guard}{}\"", cell.replace('"', "\"\"")));
    }
    text.push_str("\r\n");
}

fn schema(fields: &[String]) -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let approved_at = Field::new("approved_at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false);
    let own = [
        text("document_id", false),
        Field::new("version", DataType::Int32, false),
        text("url", false),
        text("origin", false),
        approved_at,
        text("approved_by", true),
    ];
    Arc::new(Schema::new(own.into_iter().chain(fields.iter().map(|field| text(&column(field), true))).collect::<Vec<_>>()))
}

fn batch(schema: &SchemaRef, fields: &[String], rows: &[PublishedCopy]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let texts =
        |of: &dyn Fn(&PublishedCopy) -> Option<String>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<StringArray>()) };
    let mut columns: Vec<ArrayRef> = vec![
        texts(&|row| Some(row.document_id.clone())),
        Arc::new(rows.iter().map(|row| row.version).collect::<Int32Array>()),
        texts(&|row| Some(row.url.clone())),
        texts(&|row| Some(origin(row.origin).to_owned())),
        Arc::new(rows.iter().map(|row| Some(row.approved_ms)).collect::<TimestampMillisecondArray>().with_timezone("UTC")),
        texts(&|row| row.approved_by.clone()),
    ];
    columns.extend(fields.iter().map(|field| texts(&|row| cell(row.content.get(field)))));
    RecordBatch::try_new(schema.clone(), columns)
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;
    use serde_json::json;

    use super::*;

    fn row(id: &str, content: Value) -> PublishedCopy {
        let content = content.as_object().unwrap().clone();
        let (url, approved_by) = (format!("https://a.example/{id}"), Some("=kim".to_owned()));
        PublishedCopy {
            document_id: id.into(),
            version: 2,
            origin: CopyOrigin::Edited,
            url,
            content,
            approved_ms: 0,
            approved_by,
        }
    }

    fn written(format: ExportFormat, fields: &[&str], rows: &[PublishedCopy]) -> Vec<u8> {
        let mut writer = Writer::new(format, fields.iter().map(|field| (*field).to_owned()).collect());
        let mut bytes = Vec::new();
        bytes.extend(writer.rows(&[]).unwrap());
        for part in rows.chunks(1) {
            bytes.extend(writer.rows(part).unwrap());
        }
        bytes.extend(writer.end().unwrap());
        bytes
    }

    #[test]
    fn no_cell_is_a_formula_and_none_breaks_its_line() {
        let rows = [
            row("=1+1", json!({"title": "=HYPERLINK(\"https://x\",\"y\")", "url": "u", "keywords": ["a", "<b>"], "none": null})),
            row("b", json!({"title": "two\nlines, \"quoted\"", "keywords": []})),
        ];
        let text = String::from_utf8(written(ExportFormat::Csv, &["title", "url", "keywords", "none"], &rows)).unwrap();
        let expected = "\"document_id\",\"version\",\"url\",\"origin\",\"approved_at\",\"approved_by\",\"title\",\"copy.url\",\"keywords\",\"none\"\r\n\
             \"'=1+1\",\"2\",\"https://a.example/=1+1\",\"edited\",\"1970-01-01T00:00:00Z\",\"'=kim\",\"'=HYPERLINK(\"\"https://x\"\",\"\"y\"\")\",\"u\",\
             \"[\"\"a\"\",\"\"\\u003cb\\u003e\"\"]\",\r\n\
             \"b\",\"2\",\"https://a.example/b\",\"edited\",\"1970-01-01T00:00:00Z\",\"'=kim\",\"two\nlines, \"\"quoted\"\"\",,\"[]\",\r\n";
        assert_eq!(text, expected);
        for start in ["+1", "-1", "@a", "\t=1", "\r=1", "＝1"] {
            let mut guarded = String::new();
            line(&mut guarded, [Some(start.to_owned())].into_iter());
            assert!(guarded.starts_with("\"'"), "{guarded}");
        }
    }

    #[test]
    fn a_parquet_file_in_pieces_is_one_file() {
        let rows = [row("a", json!({"title": "t", "faq": [{"q": "?"}]})), row("b", json!({}))];
        let bytes = written(ExportFormat::Parquet, &["title", "faq"], &rows);
        let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
        assert_eq!(reader.num_row_groups(), 2);
        let read: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        assert_eq!((read[0].get_string(0).unwrap().as_str(), read[0].get_string(6).unwrap().as_str()), ("a", "t"));
        assert_eq!(read[0].get_string(7).unwrap(), "[{\"q\":\"?\"}]");
        assert!(read[1].get_string(6).is_err(), "nothing is null");
        let none = written(ExportFormat::Parquet, &["title"], &[]);
        assert_eq!(
            SerializedFileReader::new(Bytes::from(none)).unwrap().metadata().file_metadata().num_rows(),
            0,
            "a file all the same"
        );
    }

    #[test]
    fn markup_cannot_end_the_script_that_it_stands_in() {
        let value = json!({"name": "</script><script>alert(1)//", "text": "a & b\u{2028}"});
        let safe = script_json(&value);
        assert!(!safe.contains('<') && !safe.contains('&') && !safe.contains('\u{2028}'), "{safe}");
        assert_eq!(serde_json::from_str::<Value>(&safe).unwrap(), value, "the value is unchanged");
    }
}
