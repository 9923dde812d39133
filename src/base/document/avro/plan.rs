//! A schema as text becomes a plan: every name resolved, every logical type recognized.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// How to read a value.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) root: Kind,
    /// Types that have a name, each once, as [`Kind::Named`] counts them. They may contain themselves.
    pub(super) named: Vec<Kind>,
}

/// The kind of a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Array(Box<Kind>),
    Map(Box<Kind>),
    Union(Vec<Kind>),
    Record(Vec<Field>),
    Enum(Vec<String>),
    Fixed(usize),
    /// The place of a type in [`Plan::named`].
    Named(usize),
    /// A logical type over a kind that is read first.
    Logical(Logical, Box<Kind>),
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// What a value stands for beyond its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Logical {
    Decimal {
        precision: u32,
        scale: u32,
    },
    BigDecimal,
    Uuid,
    Date,
    /// Time of day in units of so many nanoseconds.
    Time(i64),
    /// A time in units of so many nanoseconds since 1970, on a clock of UTC or on a local one.
    Timestamp {
        unit: i64,
        local: bool,
    },
    Duration,
}

/// Digits of a decimal, more than any database keeps. A schema that asks for more is read without its logical type.
pub(super) const MAX_DIGITS: u32 = 1000;

const MILLI: i64 = 1_000_000;
const MICRO: i64 = 1_000;
const NANO: i64 = 1;

impl Plan {
    /// The plan of `text`, which may name types of the `references`: each of them stands behind those that it names itself.
    pub(super) fn parse(text: &str, references: &[String]) -> Result<Self, String> {
        let mut names = Names::default();
        for reference in references {
            names.kind(&json(reference)?, "")?;
        }
        let root = names.kind(&json(text)?, "")?;
        Ok(Self { root, named: names.kinds })
    }
}

/// The parser bounds how deep a schema may be nested, and with that every recursion over it.
fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The names met so far.
#[derive(Default)]
struct Names {
    places: HashMap<String, usize>,
    kinds: Vec<Kind>,
}

impl Names {
    fn kind(&mut self, schema: &Value, namespace: &str) -> Result<Kind, String> {
        match schema {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(branches) => {
                let kinds: Vec<Kind> = branches.iter().map(|branch| self.kind(branch, namespace)).collect::<Result<_, _>>()?;
                match kinds.iter().any(|kind| matches!(kind, Kind::Union(_))) {
                    true => Err("a union stands directly in a union".into()),
                    false => Ok(Kind::Union(kinds)),
                }
            }
            Value::Object(schema) => self.object(schema, namespace),
            other => Err(format!("`{other}` is no type")),
        }
    }

    fn object(&mut self, schema: &Map<String, Value>, namespace: &str) -> Result<Kind, String> {
        let plain = match schema.get("type") {
            Some(Value::String(kind)) => match kind.as_str() {
                "record" | "error" | "enum" | "fixed" => self.define(kind, schema, namespace)?,
                "array" => Kind::Array(Box::new(self.kind(inner(schema, "items")?, namespace)?)),
                "map" => Kind::Map(Box::new(self.kind(inner(schema, "values")?, namespace)?)),
                name => self.by_name(name, namespace)?,
            },
            Some(nested) => self.kind(nested, namespace)?,
            None => return Err("a type says no `type`".into()),
        };
        let Some(logical) = self.logical(schema, &plain) else { return Ok(plain) };
        if let Kind::Named(place) = plain
            && schema.get("type").is_some_and(|kind| kind == "fixed")
        {
            // Whoever names the type means the logical one.
            let fixed = std::mem::replace(&mut self.kinds[place], Kind::Null);
            self.kinds[place] = Kind::Logical(logical, Box::new(fixed));
            return Ok(Kind::Named(place));
        }
        Ok(Kind::Logical(logical, Box::new(plain)))
    }

    fn by_name(&self, name: &str, namespace: &str) -> Result<Kind, String> {
        Ok(match name {
            "null" => Kind::Null,
            "boolean" => Kind::Boolean,
            "int" => Kind::Int,
            "long" => Kind::Long,
            "float" => Kind::Float,
            "double" => Kind::Double,
            "bytes" => Kind::Bytes,
            "string" => Kind::String,
            _ => {
                // A name without dots that its namespace does not know may stand in none.
                let place = self.places.get(&full_name(name, namespace)).or_else(|| self.places.get(name));
                let Some(place) = place else { return Err(format!("it names the type `{name}`, which nothing defines")) };
                Kind::Named(*place)
            }
        })
    }

    fn define(&mut self, kind: &str, schema: &Map<String, Value>, namespace: &str) -> Result<Kind, String> {
        let Some(name) = schema.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
            return Err(format!("a type of kind `{kind}` has no `name`"));
        };
        let namespace = schema.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full = full_name(name, namespace);
        let place = self.kinds.len();
        if self.places.insert(full.clone(), place).is_some() {
            return Err(format!("it defines the type `{full}` twice"));
        }
        // A record may name itself in its fields, so its place is taken first.
        self.kinds.push(Kind::Null);
        let inside = full.rsplit_once('.').map_or("", |(inside, _)| inside);
        self.kinds[place] = match kind {
            "enum" => Kind::Enum(list(schema, "symbols", &full)?.iter().map(symbol).collect::<Result<_, _>>()?),
            "fixed" => match schema.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok()) {
                Some(size) => Kind::Fixed(size),
                None => return Err(format!("the fixed type `{full}` says no `size`")),
            },
            _ => {
                let fields = list(schema, "fields", &full)?;
                Kind::Record(fields.iter().map(|field| self.field(field, &full, inside)).collect::<Result<_, _>>()?)
            }
        };
        Ok(Kind::Named(place))
    }

    fn field(&mut self, field: &Value, record: &str, namespace: &str) -> Result<Field, String> {
        let name = field.get("name").and_then(Value::as_str).ok_or_else(|| format!("a field of `{record}` has no `name`"))?;
        let kind = field.get("type").ok_or_else(|| format!("field `{name}` of `{record}` has no `type`"))?;
        Ok(Field { name: name.to_owned(), kind: self.kind(kind, namespace)? })
    }

    /// The logical type that the schema adds to `plain`. As the specification asks, one that does not fit is as good as none.
    fn logical(&self, schema: &Map<String, Value>, plain: &Kind) -> Option<Logical> {
        let number = |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
        let beneath = match plain {
            Kind::Named(place) => &self.kinds[*place],
            other => other,
        };
        let logical = schema.get("logicalType")?.as_str()?;
        let timestamp =
            |unit| (*beneath == Kind::Long).then_some(Logical::Timestamp { unit, local: logical.starts_with("local-") });
        match logical {
            "decimal" if matches!(beneath, Kind::Bytes | Kind::Fixed(_)) => {
                let (precision, scale) = (number("precision")?, schema.get("scale").map_or(Some(0), |_| number("scale"))?);
                ((1..=MAX_DIGITS).contains(&precision) && scale <= precision).then_some(Logical::Decimal { precision, scale })
            }
            "big-decimal" if *beneath == Kind::Bytes => Some(Logical::BigDecimal),
            "uuid" if matches!(beneath, Kind::String | Kind::Fixed(16)) => Some(Logical::Uuid),
            "date" if *beneath == Kind::Int => Some(Logical::Date),
            "time-millis" if *beneath == Kind::Int => Some(Logical::Time(MILLI)),
            "time-micros" if *beneath == Kind::Long => Some(Logical::Time(MICRO)),
            "timestamp-millis" | "local-timestamp-millis" => timestamp(MILLI),
            "timestamp-micros" | "local-timestamp-micros" => timestamp(MICRO),
            "timestamp-nanos" | "local-timestamp-nanos" => timestamp(NANO),
            "duration" if *beneath == Kind::Fixed(12) => Some(Logical::Duration),
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
    schema.get(key).ok_or_else(|| format!("an array or a map says no `{key}`"))
}

fn list<'a>(schema: &'a Map<String, Value>, key: &str, name: &str) -> Result<&'a Vec<Value>, String> {
    schema.get(key).and_then(Value::as_array).ok_or_else(|| format!("the type `{name}` has no list of `{key}`"))
}

fn symbol(symbol: &Value) -> Result<String, String> {
    symbol.as_str().map(str::to_owned).ok_or_else(|| format!("`{symbol}` is no symbol of an enum"))
}
