//! `tidemill dead-letters show`.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::list::object;
use super::time;
use crate::cli::args::OutputArgs;
use crate::config::ConfigError;
use crate::store::Store;

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The id of the dead letter, as `list` shows it
    id: i64,
    /// The most bytes of the payload to print
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(i32).range(0..))]
    bytes: i32,
    #[command(flatten)]
    output: OutputArgs,
}

/// Bytes from outside, as text if they are UTF-8 and else in hexadecimal.
#[derive(Debug, PartialEq, Eq)]
enum PrintableBytes<'a> {
    Text(&'a str),
    Hex(String),
}

/// Shows the dead dead_letter.
pub async fn run(store: &Store, args: ShowArgs) -> Result<()> {
    let Some(dead_letter) = store.reader(None).dead_letter(args.id, args.bytes).await? else {
        let message = format!("there is no dead letter {}; `tidemill dead-letters list` lists them", args.id);
        return Err(ConfigError(message).into());
    };
    let is_whole = dead_letter.payload.as_ref().is_none_or(|payload| payload.len() as i64 == dead_letter.payload_bytes);
    let payload = dead_letter.payload.as_deref().map(|payload| shown(payload, is_whole));
    let key = dead_letter.key.as_deref().map(|key| shown(key, true));
    if args.output.json {
        let mut value = object(&dead_letter.summary);
        let headers = dead_letter.headers.iter();
        let headers: Vec<Value> = headers
            .map(|(name, value)| json!({ "name": name, "value": value.as_deref().map(|value| shown(value, true).object()) }))
            .collect();
        value["timestamp"] = json!(dead_letter.timestamp_ms.map(time));
        value["batch_id"] = json!(dead_letter.batch_id);
        value["key"] = json!(key.map(|key| key.object()));
        value["headers"] = json!(headers);
        value["payload"] = json!(payload.map(|payload| payload.object()));
        value["payload_bytes"] = json!(dead_letter.payload_bytes);
        say!("{value}");
        return Ok(());
    }
    let line = |name: &str, text: String| say!("{name:<10} {text}");
    let summary = &dead_letter.summary;
    line("id", summary.id.to_string());
    line("created", time(summary.created_ms));
    line("pipeline", summary.pipeline.clone());
    line("record", format!("{}[{}]@{}", summary.topic, summary.partition, summary.record_offset));
    line("timestamp", dead_letter.timestamp_ms.map(time).unwrap_or_else(|| "none".into()));
    if !summary.task.is_empty() {
        line("task", summary.task.clone());
    }
    if let Some(document) = &summary.document_id {
        line("document", document.clone());
    }
    line("class", summary.class.clone());
    line("reason", summary.reason.clone());
    line("attempts", summary.attempts.to_string());
    line("replays", summary.replays.to_string());
    line("replayed", summary.replayed_ms.map(time).unwrap_or_else(|| "no".into()));
    line("batch", dead_letter.batch_id.to_string());
    line("key", key.map_or_else(|| "none".into(), |key| key.line()));
    for (name, value) in &dead_letter.headers {
        let value = value.as_deref().map_or_else(|| "null".into(), |value| shown(value, true).line());
        line("header", format!("{name}: {value}"));
    }
    match payload {
        None => line("payload", "none: the record deletes a document".into()),
        Some(payload) => {
            let cut = if is_whole { String::new() } else { format!(", the first {} are shown", args.bytes) };
            line("payload", format!("{} bytes{cut}", dead_letter.payload_bytes));
            say!("{}", payload.line());
        }
    }
    Ok(())
}

/// If the bytes were cut within a character, that character is left out.
fn shown(bytes: &[u8], is_whole: bool) -> PrintableBytes<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) => PrintableBytes::Text(text),
        Err(fault) if !is_whole && fault.error_len().is_none() => {
            PrintableBytes::Text(std::str::from_utf8(&bytes[..fault.valid_up_to()]).unwrap_or_default())
        }
        Err(_) => PrintableBytes::Hex(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

impl PrintableBytes<'_> {
    fn line(&self) -> String {
        match self {
            Self::Text(text) => (*text).to_owned(),
            Self::Hex(digits) => format!("0x{digits}"),
        }
    }

    fn object(&self) -> Value {
        match self {
            Self::Text(text) => json!({ "text": text }),
            Self::Hex(digits) => json!({ "hex": digits }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_where_they_can_be() {
        assert_eq!(shown("größe".as_bytes(), true), PrintableBytes::Text("größe"));
        assert_eq!(shown(b"a\xff", true), PrintableBytes::Hex("61ff".into()));
        assert_eq!(shown(&"aß".as_bytes()[..2], false), PrintableBytes::Text("a"), "the cut went through a character");
        assert_eq!(shown(&"aß".as_bytes()[..2], true), PrintableBytes::Hex("61c3".into()));
    }
}
