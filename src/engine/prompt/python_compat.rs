//! Makes the template engine print and trim like Python, so that prompts match those of the model's publisher byte for byte.

use std::io;

use jiff::civil::Date;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

/// The date in every prompt. Some templates print the current date. With the real one, the same document would get another prompt,
/// another fingerprint and another answer every day. Llama's own templates fall back to this date.
const TODAY: Date = jiff::civil::date(2024, 7, 26);

/// Makes `environment` behave like that of Hugging Face transformers.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(|state, value, method, arguments| match (value.as_str(), arguments) {
        (Some(text), []) if ["strip", "lstrip", "rstrip"].contains(&method) => Ok(Value::from(match method {
            "lstrip" => text.trim_start_matches(is_space),
            "rstrip" => text.trim_end_matches(is_space),
            _ => text.trim_matches(is_space),
        })),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments),
    });
    environment.add_filter("trim", |text: String, characters: Option<String>| match characters {
        Some(characters) => text.trim_matches(|c| characters.contains(c)).to_owned(),
        None => text.trim_matches(is_space).to_owned(),
    });
    environment.add_filter("tojson", to_json);
    environment.add_function("strftime_now", |format: String| {
        jiff::fmt::strtime::format(&format, TODAY).map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))
    });
    environment.set_formatter(|output, state, value: &Value| match value.kind() {
        ValueKind::None => output.write_str("None").map_err(Error::from),
        ValueKind::Bool => output.write_str(if value.is_true() { "True" } else { "False" }).map_err(Error::from),
        _ => minijinja::escape_formatter(output, state, value),
    });
}

/// White space in the sense of Python's `str.isspace`: Unicode's, and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `tojson` with the output of `json.dumps`: a space after commas and colons, and no escapes for HTML.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let failed = |e: serde_json::Error| Error::new(ErrorKind::InvalidOperation, format!("tojson: {e}"));
    let indent: Option<usize> = options.get("indent")?;
    let escape: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut output = Vec::new();
    match indent {
        Some(width) => {
            let spaces = vec![b' '; width];
            let formatter = PrettyFormatter::with_indent(&spaces);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut output, formatter)).map_err(failed)?;
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut output, SpacedFormatter)).map_err(failed)?,
    }
    let text = String::from_utf8_lossy(&output);
    Ok(Value::from(if escape.unwrap_or(false) { ascii(&text) } else { text.into_owned() }))
}

/// JSON in which every character beyond ASCII is escaped.
fn ascii(json: &str) -> String {
    let mut output = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            output.push(c);
        } else {
            output.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    output
}

/// Compact JSON with a space after each comma and colon.
struct SpacedFormatter;

impl Formatter for SpacedFormatter {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_byte_array<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: &[u8]) -> io::Result<()> {
        CompactFormatter.write_byte_array(writer, value)
    }
}
