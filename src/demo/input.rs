//! Documents from a file, as the records that a producer would send.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, bail};
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

/// A record to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The document's id, where the payload tells it: versions of one document must share a partition.
    pub key: Option<String>,
    /// The payload.
    pub payload: Vec<u8>,
}

/// The records of the file: each line of `.jsonl` as it stands, broken or not, or each row of `.parquet` as a JSON object.
///
/// # Errors
/// Where the file cannot be read, or its name ends otherwise.
pub fn read(path: &Path, id_field: &str) -> Result<Box<dyn Iterator<Item = Result<Input>> + Send>> {
    let file = File::open(path).with_context(|| format!("cannot open the input {}", path.display()))?;
    let name = path.display().to_string();
    let id_field = id_field.to_owned();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl" | "ndjson") => {
            let lines = BufReader::new(file).split(b'\n');
            Ok(Box::new(lines.filter(|line| !line.as_ref().is_ok_and(|line| line.trim_ascii().is_empty())).map(move |line| {
                let mut payload = line.with_context(|| format!("cannot read {name}"))?;
                payload.truncate(payload.trim_ascii_end().len());
                let key = serde_json::from_slice(&payload).ok().and_then(|object| key(&object, &id_field));
                Ok(Input { key, payload })
            })))
        }
        Some("parquet") => {
            let reader = SerializedFileReader::new(file).with_context(|| format!("{name} is no Parquet file"))?;
            // Opened here, so that a damaged file fails before anything is sent.
            reader.get_row_iter(None).with_context(|| format!("cannot read {name}"))?;
            Ok(Box::new(reader.into_iter().map(move |row| {
                let object = row.with_context(|| format!("cannot read {name}"))?.to_json_value();
                Ok(Input { key: key(&object, &id_field), payload: object.to_string().into_bytes() })
            })))
        }
        _ => bail!("the input {name} is neither .jsonl nor .parquet"),
    }
}

fn key(object: &Value, id_field: &str) -> Option<String> {
    match id_field.split('.').try_fold(object, |value, field| value.get(field))? {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_sent_as_they_stand_and_keyed_where_they_name_a_document() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input.jsonl");
        std::fs::write(&path, b"{\"a\":{\"id\":\"x\"}}\r\n\n{broken\n{\"a\":{\"id\":7}}\n\xff\xfe\n").unwrap();
        let inputs: Vec<Input> = read(&path, "a.id").unwrap().map(Result::unwrap).collect();
        let keys: Vec<Option<&str>> = inputs.iter().map(|input| input.key.as_deref()).collect();
        assert_eq!(keys, [Some("x"), None, Some("7"), None]);
        assert_eq!(inputs[1].payload, b"{broken");
        assert_eq!(inputs[3].payload, b"\xff\xfe", "bytes that are no text are sent too: the pipeline must cope");
    }

    #[test]
    fn an_input_of_another_kind_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input.csv");
        std::fs::write(&path, "id,text").unwrap();
        let error = read(&path, "id").err().unwrap().to_string();
        assert!(error.contains("input.csv is neither .jsonl nor .parquet"), "{error}");
    }
}
