//! Compiles the text of a schema: resolves every name and recognizes every logical type.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// A compiled schema: how to read a value.
#[derive(Debug)]
pub(super) struct ReadPlan {
    pub(super) root: AvroType,
    /// The types with names, by the index in [`AvroType::Named`]. They may contain themselves.
    pub(super) named: Vec<AvroType>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum AvroType {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Array(Box<AvroType>),
    Map(Box<AvroType>),
    Union(Vec<AvroType>),
    Record(Vec<Field>),
    Enum(Vec<String>),
    Fixed(usize),
    /// The index of a type in [`ReadPlan::named`].
    Named(usize),
    /// A logical type with the type that stores it.
    Logical(LogicalType, Box<AvroType>),
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: AvroType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogicalType {
    Decimal {
        precision: u32,
        scale: u32,
    },
    BigDecimal,
    Uuid,
    Date,
    /// The time of day, in units of this many nanoseconds.
    Time(i64),
    /// The time since 1970 in units of `unit` nanoseconds, in UTC or in an unknown local time zone.
    Timestamp {
        unit: i64,
        local: bool,
    },
    Duration,
}

/// The largest precision of a decimal. A schema with a greater one is read without its logical type.
pub(super) const MAX_DIGITS: u32 = 1000;

const MILLI: i64 = 1_000_000;
const MICRO: i64 = 1_000;
const NANO: i64 = 1;

impl ReadPlan {
    /// Compiles `text`, which may name types of the `references`. A reference may name types of earlier ones.
    pub(super) fn parse(text: &str, references: &[String]) -> Result<Self, String> {
        let mut names = NamedTypes::default();
        for reference in references {
            names.kind(&json(reference)?, "")?;
        }
        let root = names.kind(&json(text)?, "")?;
        Ok(Self { root, named: names.kinds })
    }
}

/// Parses JSON. The parser limits the nesting of a schema, and so the depth of every recursion over it.
fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The types with names that are defined so far.
#[derive(Default)]
struct NamedTypes {
    places: HashMap<String, usize>,
    kinds: Vec<AvroType>,
}

impl NamedTypes {
    fn kind(&mut self, schema: &Value, namespace: &str) -> Result<AvroType, String> {
        match schema {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(branches) => {
                let kinds: Vec<AvroType> =
                    branches.iter().map(|branch| self.kind(branch, namespace)).collect::<Result<_, _>>()?;
                match kinds.iter().any(|kind| matches!(kind, AvroType::Union(_))) {
                    true => Err("a union is directly inside a union".into()),
                    false => Ok(AvroType::Union(kinds)),
                }
            }
            Value::Object(schema) => self.object(schema, namespace),
            other => Err(format!("`{other}` is not a type")),
        }
    }

    fn object(&mut self, schema: &Map<String, Value>, namespace: &str) -> Result<AvroType, String> {
        let plain = match schema.get("type") {
            Some(Value::String(kind)) => match kind.as_str() {
                "record" | "error" | "enum" | "fixed" => self.define(kind, schema, namespace)?,
                "array" => AvroType::Array(Box::new(self.kind(inner(schema, "items")?, namespace)?)),
                "map" => AvroType::Map(Box::new(self.kind(inner(schema, "values")?, namespace)?)),
                name => self.by_name(name, namespace)?,
            },
            Some(nested) => self.kind(nested, namespace)?,
            None => return Err("a type has no `type`".into()),
        };
        let Some(logical) = self.logical(schema, &plain) else { return Ok(plain) };
        if let AvroType::Named(place) = plain
            && schema.get("type").is_some_and(|kind| kind == "fixed")
        {
            // Later uses of the fixed type's name mean the logical type.
            let fixed = std::mem::replace(&mut self.kinds[place], AvroType::Null);
            self.kinds[place] = AvroType::Logical(logical, Box::new(fixed));
            return Ok(AvroType::Named(place));
        }
        Ok(AvroType::Logical(logical, Box::new(plain)))
    }

    fn by_name(&self, name: &str, namespace: &str) -> Result<AvroType, String> {
        Ok(match name {
            "null" => AvroType::Null,
            "boolean" => AvroType::Boolean,
            "int" => AvroType::Int,
            "long" => AvroType::Long,
            "float" => AvroType::Float,
            "double" => AvroType::Double,
            "bytes" => AvroType::Bytes,
            "string" => AvroType::String,
            _ => {
                // A name without dots that is not in its namespace may be one without a namespace.
                let place = self.places.get(&full_name(name, namespace)).or_else(|| self.places.get(name));
                let Some(place) = place else { return Err(format!("it names the type `{name}`, which is not defined")) };
                AvroType::Named(*place)
            }
        })
    }

    fn define(&mut self, kind: &str, schema: &Map<String, Value>, namespace: &str) -> Result<AvroType, String> {
        let Some(name) = schema.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
            return Err(format!("a type of kind `{kind}` has no `name`"));
        };
        let namespace = schema.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full = full_name(name, namespace);
        let place = self.kinds.len();
        if self.places.insert(full.clone(), place).is_some() {
            return Err(format!("it defines the type `{full}` twice"));
        }
        // A record may name itself in its fields, so its index is reserved first.
        self.kinds.push(AvroType::Null);
        let inside = full.rsplit_once('.').map_or("", |(inside, _)| inside);
        self.kinds[place] = match kind {
            "enum" => AvroType::Enum(list(schema, "symbols", &full)?.iter().map(symbol).collect::<Result<_, _>>()?),
            "fixed" => match schema.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok()) {
                Some(size) => AvroType::Fixed(size),
                None => return Err(format!("the fixed type `{full}` has no `size`")),
            },
            _ => {
                let fields = list(schema, "fields", &full)?;
                AvroType::Record(fields.iter().map(|field| self.field(field, &full, inside)).collect::<Result<_, _>>()?)
            }
        };
        Ok(AvroType::Named(place))
    }

    fn field(&mut self, field: &Value, record: &str, namespace: &str) -> Result<Field, String> {
        let name = field.get("name").and_then(Value::as_str).ok_or_else(|| format!("a field of `{record}` has no `name`"))?;
        let kind = field.get("type").ok_or_else(|| format!("field `{name}` of `{record}` has no `type`"))?;
        Ok(Field { name: name.to_owned(), kind: self.kind(kind, namespace)? })
    }

    /// The logical type that the schema adds to `plain`. As the specification requires, one that does not fit its type is ignored.
    fn logical(&self, schema: &Map<String, Value>, plain: &AvroType) -> Option<LogicalType> {
        let number = |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
        let beneath = match plain {
            AvroType::Named(place) => &self.kinds[*place],
            other => other,
        };
        let logical = schema.get("logicalType")?.as_str()?;
        let timestamp =
            |unit| (*beneath == AvroType::Long).then_some(LogicalType::Timestamp { unit, local: logical.starts_with("local-") });
        match logical {
            "decimal" if matches!(beneath, AvroType::Bytes | AvroType::Fixed(_)) => {
                let (precision, scale) = (number("precision")?, schema.get("scale").map_or(Some(0), |_| number("scale"))?);
                ((1..=MAX_DIGITS).contains(&precision) && scale <= precision).then_some(LogicalType::Decimal { precision, scale })
            }
            "big-decimal" if *beneath == AvroType::Bytes => Some(LogicalType::BigDecimal),
            "uuid" if matches!(beneath, AvroType::String | AvroType::Fixed(16)) => Some(LogicalType::Uuid),
            "date" if *beneath == AvroType::Int => Some(LogicalType::Date),
            "time-millis" if *beneath == AvroType::Int => Some(LogicalType::Time(MILLI)),
            "time-micros" if *beneath == AvroType::Long => Some(LogicalType::Time(MICRO)),
            "timestamp-millis" | "local-timestamp-millis" => timestamp(MILLI),
            "timestamp-micros" | "local-timestamp-micros" => timestamp(MICRO),
            "timestamp-nanos" | "local-timestamp-nanos" => timestamp(NANO),
            "duration" if *beneath == AvroType::Fixed(12) => Some(LogicalType::Duration),
            _ => None,
        }
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    match name.contains('.') || namespace.is_empty() {
        true => name.to_owned(),
        false => format!("{namespace}.{name}"),
    }
}

fn inner<'a>(schema: &'a Map<String, Value>, key: &str) -> Result<&'a Value, String> {
    schema.get(key).ok_or_else(|| format!("an array or a map has no `{key}`"))
}

fn list<'a>(schema: &'a Map<String, Value>, key: &str, name: &str) -> Result<&'a Vec<Value>, String> {
    schema.get(key).and_then(Value::as_array).ok_or_else(|| format!("the type `{name}` has no list of `{key}`"))
}

fn symbol(symbol: &Value) -> Result<String, String> {
    symbol.as_str().map(str::to_owned).ok_or_else(|| format!("`{symbol}` is not a symbol of an enum"))
}
