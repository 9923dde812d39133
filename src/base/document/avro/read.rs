//! Reads a JSON value from bytes with a compiled schema, within limits on nesting and memory.

use std::fmt::Display;

use serde_json::{Map, Number, Value};

use super::logical;
use super::plan::{AvroType, Field, LogicalType, ReadPlan};
use crate::document::json_scalars;
use crate::failure::FailureClass;

/// How deep records, arrays and maps may be nested: as deep as JSON.
const MAX_DEPTH: usize = 127;

/// The memory of a value in bytes, without the text in it.
const VALUE: usize = 32;

/// The memory that a payload may take is `BASE_GROWTH` bytes plus `GROWTH` bytes for each of its bytes. The first is enough for a
/// thousand fields that are null. With the second, a record whose every byte is a field may have field names of 96 characters. Only
/// a payload that was made to take much memory needs more.
const BASE_GROWTH: usize = 64 << 10;
const GROWTH: usize = 128;

/// Why bytes could not be read.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) class: FailureClass,
    reason: String,
    /// The byte at which the reader was.
    at: usize,
    /// The names of the fields that the reader was in, innermost first.
    path: Vec<String>,
}

impl Fault {
    /// A message for the fault.
    pub(super) fn sentence(&self, schema: u32) -> String {
        let Self { reason, at, path, .. } = self;
        let place = match path.is_empty() {
            true => String::new(),
            false => format!(" in field `{}`", path.iter().rev().map(String::as_str).collect::<Vec<_>>().join(".")),
        };
        format!("the value does not fit its schema {schema} at byte {at}{place}: {reason}")
    }
}

/// Reads the value in `bytes`.
pub(super) fn value(plan: &ReadPlan, bytes: &[u8]) -> Result<Value, Fault> {
    let growth = BASE_GROWTH.saturating_add(bytes.len().saturating_mul(GROWTH));
    let mut reader = ValueReader { plan, whole: bytes.len(), rest: bytes, growth };
    let value = reader.value(&plan.root, 0)?;
    match reader.rest.len() {
        0 => Ok(value),
        left => Err(reader.malformed(format!("{left} bytes are left over"))),
    }
}

struct ValueReader<'a> {
    plan: &'a ReadPlan,
    whole: usize,
    rest: &'a [u8],
    /// How many bytes of memory further values may take.
    growth: usize,
}

impl<'a> ValueReader<'a> {
    fn value(&mut self, kind: &'a AvroType, depth: usize) -> Result<Value, Fault> {
        if !matches!(kind, AvroType::Union(_) | AvroType::Named(_)) {
            self.charge(VALUE)?;
        }
        Ok(match kind {
            AvroType::Null => Value::Null,
            AvroType::Boolean => match self.take(1, "a boolean")? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other, ..] => return Err(self.malformed(format!("{other} is not a boolean"))),
                [] => return Err(self.malformed("a boolean is missing")),
            },
            AvroType::Int => self.int()?.into(),
            AvroType::Long => self.long()?.into(),
            AvroType::Float => float(f32::from_le_bytes(self.array("a float")?)),
            AvroType::Double => double(f64::from_le_bytes(self.array("a double")?)),
            AvroType::Bytes => {
                let bytes = self.bytes("bytes")?;
                self.charge(bytes.len())?;
                json_scalars::base64(bytes).into()
            }
            AvroType::String => self.string()?.into(),
            AvroType::Fixed(size) => {
                let bytes = self.take(*size, "a fixed value")?;
                self.charge(bytes.len())?;
                json_scalars::base64(bytes).into()
            }
            AvroType::Enum(symbols) => {
                let at = self.int()?;
                let symbol = usize::try_from(at).ok().and_then(|at| symbols.get(at));
                let Some(symbol) = symbol else {
                    return Err(self.malformed(format!("symbol {at} of an enum that has {}", symbols.len())));
                };
                self.charge(symbol.len())?;
                symbol.as_str().into()
            }
            AvroType::Union(branches) => {
                let at = self.long()?;
                let Some(branch) = usize::try_from(at).ok().and_then(|at| branches.get(at)) else {
                    return Err(self.malformed(format!("branch {at} of a union that has {}", branches.len())));
                };
                self.value(branch, depth)?
            }
            AvroType::Named(place) => self.value(&self.plan.named[*place], depth)?,
            AvroType::Record(fields) => self.record(fields, self.deeper(depth)?)?,
            AvroType::Array(items) => self.items(items, self.deeper(depth)?)?,
            AvroType::Map(values) => self.entries(values, self.deeper(depth)?)?,
            AvroType::Logical(logical, beneath) => self.logical(*logical, beneath)?,
        })
    }

    fn record(&mut self, fields: &'a [Field], depth: usize) -> Result<Value, Fault> {
        let mut object = Map::new();
        for field in fields {
            self.charge(field.name.len())?;
            let value = self.value(&field.kind, depth).map_err(|mut fault| {
                fault.path.push(field.name.clone());
                fault
            })?;
            object.insert(field.name.clone(), value);
        }
        Ok(object.into())
    }

    fn items(&mut self, kind: &'a AvroType, depth: usize) -> Result<Value, Fault> {
        let mut items = Vec::new();
        loop {
            match self.block()? {
                0 => return Ok(items.into()),
                // The count of the block is not trusted: each item is charged before the next one is read.
                count => {
                    for _ in 0..count {
                        items.push(self.value(kind, depth)?);
                    }
                }
            }
        }
    }

    fn entries(&mut self, kind: &'a AvroType, depth: usize) -> Result<Value, Fault> {
        let mut entries = Map::new();
        loop {
            match self.block()? {
                0 => return Ok(entries.into()),
                count => {
                    for _ in 0..count {
                        let key = self.string()?;
                        let value = self.value(kind, depth).map_err(|mut fault| {
                            fault.path.push(key.clone());
                            fault
                        })?;
                        entries.insert(key, value);
                    }
                }
            }
        }
    }

    /// How many items follow. After a negative count comes the size of the block in bytes, which only a reader that skips blocks
    /// needs.
    fn block(&mut self) -> Result<u64, Fault> {
        let count = self.long()?;
        if count < 0 {
            self.long()?;
        }
        Ok(count.unsigned_abs())
    }

    fn logical(&mut self, logical: LogicalType, beneath: &'a AvroType) -> Result<Value, Fault> {
        let beneath = match beneath {
            AvroType::Named(place) => &self.plan.named[*place],
            other => other,
        };
        let outcome = match beneath {
            AvroType::Int => logical::of_integer(logical, self.int()?.into()),
            AvroType::Long => logical::of_integer(logical, self.long()?),
            AvroType::String => Ok(self.string()?.into()),
            AvroType::Fixed(size) => logical::of_bytes(logical, self.take(*size, "a fixed value")?),
            _ => logical::of_bytes(logical, self.bytes("bytes")?),
        };
        let value = outcome.map_err(|reason| self.malformed(reason))?;
        self.charge(value.as_str().map_or(0, str::len))?;
        Ok(value)
    }

    fn deeper(&self, depth: usize) -> Result<usize, Fault> {
        match depth < MAX_DEPTH {
            true => Ok(depth + 1),
            false => Err(self.fault(FailureClass::TooDeep, format!("the value is nested deeper than {MAX_DEPTH} levels"))),
        }
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Fault> {
        match self.growth.checked_sub(bytes) {
            Some(left) => {
                self.growth = left;
                Ok(())
            }
            None => {
                let reason = format!("{} bytes grow to more than {GROWTH} times their size", self.whole);
                Err(self.fault(FailureClass::TooLarge, reason))
            }
        }
    }

    fn int(&mut self) -> Result<i32, Fault> {
        let long = self.long()?;
        i32::try_from(long).map_err(|_| self.malformed(format!("{long} is not a 32-bit integer")))
    }

    /// A zigzag-encoded variable-length integer: seven bits per byte, the lowest first, with the sign in the lowest bit of all.
    fn long(&mut self) -> Result<i64, Fault> {
        let mut bits: u64 = 0;
        for place in 0..10 {
            let byte = self.array::<1>("an integer")?[0];
            let seven = u64::from(byte & 0x7f);
            if place == 9 && seven > 1 {
                break;
            }
            bits |= seven << (7 * place);
            if byte & 0x80 == 0 {
                return Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed());
            }
        }
        Err(self.malformed("an integer has more than 64 bits"))
    }

    fn string(&mut self) -> Result<String, Fault> {
        let bytes = self.bytes("a string")?;
        self.charge(bytes.len())?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => {
                let reason = format!("a string is not UTF-8 at its byte {}", error.valid_up_to());
                Err(self.fault(FailureClass::InvalidUtf8, reason))
            }
        }
    }

    fn bytes(&mut self, what: &str) -> Result<&'a [u8], Fault> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length, what),
            Err(_) => Err(self.malformed(format!("{what} of {length} bytes"))),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Fault> {
        let bytes = self.take(N, what)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], Fault> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.malformed(format!("{what} of {length} bytes, but {} are left", self.rest.len()))),
        }
    }

    fn malformed(&self, reason: impl Display) -> Fault {
        self.fault(FailureClass::MalformedAvro, reason)
    }

    fn fault(&self, class: FailureClass, reason: impl Display) -> Fault {
        Fault { class, reason: reason.to_string(), at: self.whole - self.rest.len(), path: Vec::new() }
    }
}

/// The shortest decimal number that has this `f32`: 0.1 and not 0.10000000149011612.
fn float(float: f32) -> Value {
    double(if float.is_finite() { float.to_string().parse().unwrap_or(f64::from(float)) } else { f64::from(float) })
}

fn double(double: f64) -> Value {
    match Number::from_f64(double) {
        Some(number) => number.into(),
        None if double.is_nan() => "NaN".into(),
        None if double > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}
