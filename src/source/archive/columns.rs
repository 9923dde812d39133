//! Chooses the columns of a file that are read and their types, and checks them against what the pipeline needs.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{Compression, LogicalType, Type as Physical};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::schema::types::SchemaDescriptor;

use super::file_problem::FileProblem;
use super::json_values::{JsonForm, has_form, is_bytes, is_text};

/// The columns that a pipeline reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestedColumns {
    /// The id column: text, an integer or a UUID.
    pub id: String,
    /// The version column: text, an integer, a date or a timestamp.
    pub version: Option<String>,
    /// Columns that make up the text.
    pub text: BTreeSet<String>,
    /// Text columns that a file may lack, because the template tests whether they exist.
    pub optional: BTreeSet<String>,
    /// Columns stored as metadata. A file may lack them.
    pub metadata: BTreeSet<String>,
    /// The id column of rows that are deletes, if it differs from `id`. A file may lack it.
    pub deleted: Option<String>,
}

/// The columns that are read from a file.
#[derive(Debug)]
pub(super) struct Columns {
    /// The metadata of the file, with the types as which the columns are read.
    pub metadata: ArrowReaderMetadata,
    /// The projection of the columns.
    pub mask: ProjectionMask,
    /// Their names and JSON forms.
    pub fields: Vec<(String, JsonForm)>,
    /// Their indexes among the leaf columns.
    pub leaves: BTreeSet<usize>,
}

/// The supported codecs, for messages.
const CODECS: &str = "uncompressed, SNAPPY, GZIP, LZ4, LZ4_RAW and ZSTD";
/// Most levels of nested columns. A document has no more, and each level uses stack space.
const DEPTH: usize = 127;

impl RequestedColumns {
    fn named(&self) -> impl Iterator<Item = &str> {
        let texts = self.text.iter().chain(&self.metadata).chain(&self.version).chain(&self.deleted);
        texts.map(String::as_str).chain([self.id.as_str()])
    }

    /// Whether the pipeline names this column, a column that contains it, or a column inside it.
    fn names(&self, path: &str) -> bool {
        let within =
            |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.named().any(|name| within(name, path) || within(path, name))
    }
}

impl Columns {
    /// All columns whose values can be written as JSON. Binary columns are read only if the pipeline names them, because they may
    /// be images.
    pub(super) fn of(metadata: Arc<ParquetMetaData>, needs: &RequestedColumns) -> Result<Self, FileProblem> {
        let written = ArrowReaderMetadata::try_new(metadata.clone(), ArrowReaderOptions::new())?;
        check(written.schema(), needs).map_err(FileProblem::Schema)?;
        let descriptor = written.parquet_schema();
        let mut leaf = 0;
        let fields: Vec<FieldRef> = written.schema().fields().iter().map(|field| read_as(field, descriptor, &mut leaf)).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, written.schema().metadata().clone()));
        let metadata = ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new().with_schema(schema.clone()))?;
        let mut choice = ColumnWalk { needs, descriptor: metadata.parquet_schema(), leaf: 0, kept: BTreeSet::new() };
        let fields = choice.fields(schema.fields(), "", DEPTH);
        let leaves = choice.kept;
        check_codecs(metadata.metadata(), &leaves)?;
        let mask = ProjectionMask::leaves(metadata.parquet_schema(), leaves.iter().copied());
        Ok(Self { metadata, mask, fields, leaves })
    }

    /// The columns of a row group that are read, with their indexes.
    pub(super) fn read(&self, group: usize) -> impl Iterator<Item = (usize, &ColumnChunkMetaData)> {
        let columns = self.metadata.metadata().row_groups().get(group).map(|group| group.columns()).unwrap_or_default();
        columns.iter().enumerate().filter(|(leaf, _)| self.leaves.contains(leaf))
    }
}

/// The type as which a column is read. Text and bytes become views, which are not copied for each row. The old 96-bit timestamps
/// become microseconds, because 64-bit nanoseconds end in the year 2262.
fn read_as(field: &FieldRef, descriptor: &SchemaDescriptor, leaf: &mut usize) -> FieldRef {
    let mut inner = |field: &FieldRef| read_as(field, descriptor, leaf);
    let kind = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect::<Fields>()),
        DataType::List(item) => DataType::List(inner(item)),
        DataType::LargeList(item) => DataType::LargeList(inner(item)),
        DataType::ListView(item) => DataType::ListView(inner(item)),
        DataType::LargeListView(item) => DataType::LargeListView(inner(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(inner(item), *size),
        DataType::Map(entries, sorted) => DataType::Map(inner(entries), *sorted),
        kind => {
            let physical = descriptor.columns().get(*leaf).map(|column| column.physical_type());
            *leaf += 1;
            match plain(kind) {
                DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
                DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
                DataType::Timestamp(_, zone) if physical == Some(Physical::INT96) => {
                    DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
                }
                kind => kind.clone(),
            }
        }
    };
    Arc::new(Field::clone(field).with_data_type(kind))
}

/// The value type of dictionary and run-end encoded columns.
fn plain(kind: &DataType) -> &DataType {
    match kind {
        DataType::Dictionary(_, values) => plain(values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        kind => kind,
    }
}

/// Walks through the leaf columns.
struct ColumnWalk<'a> {
    needs: &'a RequestedColumns,
    descriptor: &'a SchemaDescriptor,
    leaf: usize,
    kept: BTreeSet<usize>,
}

impl ColumnWalk<'_> {
    fn fields(&mut self, fields: &Fields, within: &str, depth: usize) -> Vec<(String, JsonForm)> {
        let mut found = Vec::new();
        for field in fields {
            let path = if within.is_empty() { field.name().clone() } else { format!("{within}.{}", field.name()) };
            found.extend(self.form(field, &path, depth).map(|form| (field.name().clone(), form)));
        }
        found
    }

    /// `None` if nothing of the column is read.
    fn form(&mut self, field: &Field, path: &str, depth: usize) -> Option<JsonForm> {
        let (first, deeper) = (self.leaf, depth.saturating_sub(1));
        let form = match field.data_type() {
            DataType::Struct(fields) => {
                let fields = self.fields(fields, path, deeper);
                (!fields.is_empty()).then_some(JsonForm::Object(fields))
            }
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => self.form(item, path, deeper).map(|item| JsonForm::Array(Box::new(item))),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(pair) if pair.len() == 2 => {
                    let (key, value) = (self.form(&pair[0], path, deeper), self.form(&pair[1], path, deeper));
                    key.zip(value).map(|pair| JsonForm::Map(Box::new(pair)))
                }
                _ => None,
            },
            kind => {
                let leaf = self.leaf;
                self.leaf += 1;
                let is_uuid = self.is_uuid(leaf) && *kind == DataType::FixedSizeBinary(16);
                let wanted = has_form(kind) && (!is_bytes(kind) || is_uuid || self.needs.names(path));
                wanted.then(|| {
                    self.kept.insert(leaf);
                    if is_uuid { JsonForm::Uuid } else { JsonForm::Plain }
                })
            }
        };
        let form = form.filter(|_| depth > 0);
        if form.is_none() {
            // For example, a map of which only the keys can be written as JSON.
            self.kept.retain(|leaf| *leaf < first);
        }
        form
    }

    fn is_uuid(&self, leaf: usize) -> bool {
        let column = self.descriptor.columns().get(leaf);
        column.is_some_and(|column| matches!(column.logical_type_ref(), Some(LogicalType::Uuid)))
    }
}

fn check_codecs(metadata: &ParquetMetaData, leaves: &BTreeSet<usize>) -> Result<(), FileProblem> {
    for group in metadata.row_groups() {
        for column in leaves.iter().filter_map(|leaf| group.columns().get(*leaf)) {
            let name = match column.compression() {
                Compression::BROTLI(_) => "BROTLI",
                Compression::LZO => "LZO",
                _ => continue,
            };
            return Err(FileProblem::Unsupported(format!(
                "column `{}` is compressed with {name}, which is not supported; write the file again with one of {CODECS}",
                column.column_path().string()
            )));
        }
    }
    Ok(())
}

/// The column with this name or path. A path into a map leads to its value.
fn find<'a>(fields: &'a Fields, path: &str) -> Option<&'a Field> {
    if let Some((_, field)) = fields.find(path) {
        return Some(field);
    }
    path.match_indices('.').find_map(|(dot, _)| {
        let (_, field) = fields.find(&path[..dot])?;
        match field.data_type() {
            DataType::Struct(inner) => find(inner, &path[dot + 1..]),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(pair) => pair.get(1).map(|value| &**value),
                _ => None,
            },
            _ => None,
        }
    })
}

fn check(schema: &Schema, needs: &RequestedColumns) -> Result<(), String> {
    let check = |name: &str, what: &str, fits: fn(&DataType) -> bool| {
        let Some(field) = find(schema.fields(), name) else {
            let present: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).take(20).collect();
            return Err(format!("column `{name}`, which the pipeline needs, is missing; there are {}", present.join(", ")));
        };
        let kind = plain(field.data_type());
        // A column with only nulls has no type in the file.
        if fits(kind) || *kind == DataType::Null {
            return Ok(());
        }
        Err(format!("column `{name}` is {kind}, but {what}"))
    };
    check(&needs.id, "an id is text or an integer", |kind| {
        is_text(kind) || kind.is_integer() || *kind == DataType::FixedSizeBinary(16)
    })?;
    if let Some(version) = &needs.version {
        check(version, "a version is an integer, a date, a timestamp or a text with one of them", |kind| {
            is_text(kind) || kind.is_integer() || matches!(kind, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
        })?;
    }
    let is_there = |name: &&String| find(schema.fields(), name).is_some();
    for name in needs.text.iter().filter(|name| is_there(name) || !needs.optional.contains(*name)) {
        check(name, "the pipeline uses it as text", is_readable)?;
    }
    for name in needs.metadata.iter().filter(is_there) {
        check(name, "the pipeline stores it, and values of this type cannot be written as JSON", is_readable)?;
    }
    Ok(())
}

/// Whether values of this type can be written as JSON.
fn is_readable(kind: &DataType) -> bool {
    match kind {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => is_readable(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| is_readable(field.data_type())),
        DataType::Map(entries, _) => is_readable(entries.data_type()),
        kind => has_form(plain(kind)),
    }
}

/// Checks that the column can be compared with `since` and `until`.
pub(super) fn check_time(schema: &Schema, name: &str) -> Result<(), String> {
    match find(schema.fields(), name).map(Field::data_type) {
        Some(kind) if kind.is_integer() => Err(format!(
            "column `{name}` is {kind}, but `since` and `until` need a date, a timestamp or a text with one of them; remove them"
        )),
        _ => Ok(()),
    }
}
