//! Walks a schema and writes the rules of its grammar.

use std::collections::HashMap;
use std::fmt::Write;

use serde_json::{Map, Value};

use super::spans::{SPACE, escaped, length, passages, spans_from};
use super::{LeafType, LeafValues, SpanGrammarError};

/// Keywords that constrain nothing.
const ANNOTATIONS: [&str; 14] = [
    "title",
    "description",
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "unit",
    "$anchor",
];

/// Keywords that the grammar follows.
const STRUCTURE: [&str; 11] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "enum",
    "const",
    "anyOf",
];

/// Keywords that the caller follows when it lists the values of a string or number.
const LEAVES: [&str; 10] = [
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "contentMediaType",
];

/// The most levels of a schema, counting references.
const MOST_LEVELS: usize = 64;

/// The largest number of items for which a list's bounds are written out.
const MOST_ITEMS: u64 = 10_000;

/// A string literal of Lark for the JSON text `json`.
fn literal(json: &str) -> String {
    Value::from(json).to_string()
}

/// Writes the rules and terminals of one grammar.
pub(super) struct GrammarWriter<'a> {
    root: &'a Value,
    chunks: &'a [&'a str],
    leaf: &'a dyn Fn(&Map<String, Value>, LeafType) -> LeafValues,
    lark: String,
    symbols: usize,
    /// The rules of the definitions that references name. `None` has no allowed value.
    references: HashMap<String, Option<String>>,
    /// The terminals of spans, by their greatest length. `None` is a length that no span has.
    spans: HashMap<Option<u64>, Symbol>,
}

/// A symbol of the grammar, or nothing where no value is allowed.
type Symbol = Option<String>;

impl<'a> GrammarWriter<'a> {
    pub(super) fn new(
        root: &'a Value,
        chunks: &'a [&'a str],
        leaf: &'a dyn Fn(&Map<String, Value>, LeafType) -> LeafValues,
    ) -> Self {
        Self { root, chunks, leaf, lark: String::new(), symbols: 0, references: HashMap::new(), spans: HashMap::new() }
    }

    /// The grammar of the whole schema.
    pub(super) fn grammar(mut self) -> Result<String, SpanGrammarError> {
        let start = self.value(self.root, "", 0)?.ok_or_else(|| SpanGrammarError::NoValue("/".into()))?;
        Ok(format!("start: {start}\n{}", self.lark))
    }

    fn rule(&mut self, body: &str) -> String {
        self.symbols += 1;
        let name = format!("n{}", self.symbols);
        let _ = writeln!(self.lark, "{name}: {body}");
        name
    }

    fn terminal(&mut self, body: &str) -> String {
        self.symbols += 1;
        let name = format!("T{}", self.symbols);
        let _ = writeln!(self.lark, "{name}: {body}");
        name
    }

    fn value(&mut self, schema: &Value, path: &str, level: usize) -> Result<Symbol, SpanGrammarError> {
        let unsupported = |what: String| Err(SpanGrammarError::Unsupported(format!("{what}, at `{}`", place(path))));
        if level > MOST_LEVELS {
            return unsupported(format!("the schema has more than {MOST_LEVELS} levels"));
        }
        let any = Map::new();
        let schema = match schema {
            Value::Bool(true) => &any,
            Value::Object(schema) => schema,
            _ => return unsupported("the schema allows no value".into()),
        };
        let known =
            |key: &str| [&ANNOTATIONS[..], &STRUCTURE, &LEAVES].iter().any(|keys| keys.contains(&key)) || key.starts_with("x-");
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            return match schema.keys().find(|key| *key != "$ref" && !ANNOTATIONS.contains(&key.as_str())) {
                Some(other) => unsupported(format!("the keyword `{other}` beside `$ref` is not supported")),
                None => self.reference(reference, path, level),
            };
        }
        if let Some(key) = schema.keys().find(|key| !known(key)) {
            return unsupported(format!("the keyword `{key}` is not supported"));
        }
        if let Some(value) = schema.get("const") {
            return Ok(Some(self.terminal(&literal(&value.to_string()))));
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            let fits = |value: &&Value| types(schema).is_empty() || types(schema).iter().any(|name| is_of(value, name));
            let values: Vec<String> = values.iter().filter(fits).map(|value| literal(&value.to_string())).collect();
            return Ok((!values.is_empty()).then(|| self.terminal(&values.join(" | "))));
        }
        if let Some(parts) = schema.get("anyOf").and_then(Value::as_array) {
            if let Some(other) = schema.keys().find(|key| *key != "anyOf" && !ANNOTATIONS.contains(&key.as_str())) {
                return unsupported(format!("the keyword `{other}` beside `anyOf` is not supported: write it into each part"));
            }
            let mut symbols = Vec::new();
            for part in parts {
                symbols.extend(self.value(part, path, level + 1)?);
            }
            return Ok(self.choice(&symbols));
        }
        self.typed(schema, path, level)
    }

    /// A value of one of the schema's types. Without a type, it is what the keywords suggest, or any value that is no object and no list.
    fn typed(&mut self, schema: &Map<String, Value>, path: &str, level: usize) -> Result<Symbol, SpanGrammarError> {
        let mut names = types(schema);
        if names.is_empty() {
            let has = |keys: &[&str]| keys.iter().any(|key| schema.contains_key(*key));
            names = match () {
                () if has(&["properties", "additionalProperties"]) => vec!["object"],
                () if has(&["items", "prefixItems"]) => vec!["array"],
                () => vec!["string", "number", "boolean", "null"],
            };
        }
        let mut symbols = Vec::new();
        let mut literals: Vec<String> = Vec::new();
        for name in names {
            match name {
                "null" => literals.push("\"null\"".into()),
                "boolean" => literals.push("\"true\" | \"false\"".into()),
                "string" => literals.extend(self.quoted(schema, LeafType::String)),
                "number" => literals.extend(self.quoted(schema, LeafType::Number)),
                "integer" => literals.extend(self.quoted(schema, LeafType::Integer)),
                "object" => symbols.extend(self.object(schema, path, level)?),
                "array" => symbols.extend(self.list(schema, path, level)?),
                other => {
                    let reason = format!("the type `{other}` is not known, at `{}`", place(path));
                    return Err(SpanGrammarError::Unsupported(reason));
                }
            }
        }
        // One terminal for all alternatives without structure keeps the parser small.
        if !literals.is_empty() {
            symbols.push(self.terminal(&literals.join(" | ")));
        }
        Ok(self.choice(&symbols))
    }

    fn choice(&mut self, symbols: &[String]) -> Symbol {
        match symbols {
            [] => None,
            [symbol] => Some(symbol.clone()),
            several => Some(self.rule(&several.join(" | "))),
        }
    }

    fn reference(&mut self, reference: &str, path: &str, level: usize) -> Result<Symbol, SpanGrammarError> {
        if let Some(known) = self.references.get(reference) {
            return Ok(known.clone());
        }
        let missing = || SpanGrammarError::Unsupported(format!("`$ref: {reference}` leads nowhere, at `{}`", place(path)));
        let root = self.root;
        let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)).ok_or_else(missing)?;
        // A definition can refer to itself, so its rule needs a name before it is written.
        self.symbols += 1;
        let name = format!("n{}", self.symbols);
        self.references.insert(reference.to_owned(), Some(name.clone()));
        let symbol = self.value(target, path, level + 1)?;
        match symbol {
            Some(symbol) => {
                let _ = writeln!(self.lark, "{name}: {symbol}");
                Ok(Some(name))
            }
            None => {
                self.references.insert(reference.to_owned(), None);
                Ok(None)
            }
        }
    }

    /// The alternatives of a string or number, as the body of a terminal.
    fn quoted(&mut self, schema: &Map<String, Value>, of: LeafType) -> Option<String> {
        match (self.leaf)(schema, of) {
            LeafValues::Listed(values) => {
                let values: Vec<String> = values.iter().map(|value| literal(&value.to_string())).collect();
                (!values.is_empty()).then(|| values.join(" | "))
            }
            LeafValues::Spans { most } => self.span(most),
        }
    }

    /// The terminal of strings that are spans of at most `most` characters.
    fn span(&mut self, most: Option<u64>) -> Symbol {
        let passages = passages(self.chunks);
        // Without a passage that is longer, the length needs no attention.
        let most = most.filter(|most| passages.iter().any(|passage| length(passage) > *most));
        if let Some(known) = self.spans.get(&most) {
            return known.clone();
        }
        let symbol = match most {
            None => self.any_span(&passages),
            Some(most) => {
                let starts = passages.iter().flat_map(|passage| (0..passage.len()).map(move |start| &passage[start..]));
                let spans: Vec<String> =
                    starts.filter(|rest| rest[0] != SPACE).filter_map(|rest| spans_from(rest, most)).collect();
                (!spans.is_empty()).then(|| self.terminal(&format!("/\"({})\"/", spans.join("|"))))
            }
        };
        self.spans.insert(most, symbol.clone());
        symbol
    }

    /// The terminal of strings that are spans of any length.
    fn any_span(&mut self, passages: &[&[&str]]) -> Symbol {
        let automaton = |passage: &&[&str]| {
            let chunks: Vec<String> = passage.iter().map(|chunk| escaped(chunk)).collect();
            format!("%regex {}", serde_json::json!({ "substring_chunks": chunks }))
        };
        let bodies: Vec<String> = passages.iter().map(automaton).collect();
        if bodies.is_empty() {
            return None;
        }
        let quotes = self.terminal(&bodies.join(" | "));
        // Neither empty nor with a space at an end.
        Some(self.terminal(&format!("(\"\\\"\" {quotes} \"\\\"\") & /\"[^ \"](.*[^ ])?\"/")))
    }

    fn object(&mut self, schema: &Map<String, Value>, path: &str, level: usize) -> Result<Symbol, SpanGrammarError> {
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        if properties.is_empty() && required.is_empty() {
            return self.map(schema.get("additionalProperties").unwrap_or(&Value::Bool(true)), path, level);
        }
        let other = Value::Bool(true);
        let unnamed = required.iter().filter(|name| !properties.contains_key(**name)).map(|name| ((*name).to_owned(), &other));
        let named = properties.iter().map(|(name, schema)| (name.clone(), schema)).chain(unnamed);
        let mut members = Vec::new();
        for (name, property) in named.collect::<Vec<_>>() {
            let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
            match (self.value(property, &path, level + 1)?, required.contains(&name.as_str())) {
                (Some(symbol), is_required) => {
                    members.push(Member { key: format!("{}:", Value::from(name)), symbol, is_required })
                }
                (None, true) => return Err(SpanGrammarError::NoValue(path)),
                (None, false) => {}
            }
        }
        Ok(Some(self.members(&members)))
    }

    /// An object of these members, of which the optional ones can be left out. Each suffix of the list is a rule, so the grammar grows
    /// linearly.
    fn members(&mut self, members: &[Member]) -> String {
        // What may follow a member, and what may follow the opening brace.
        let (mut after, mut first) = (literal("}"), literal("}"));
        for member in members.iter().rev() {
            let next = format!("{} {} {after}", literal(&format!(",{}", member.key)), member.symbol);
            let start = format!("{} {} {after}", literal(&member.key), member.symbol);
            (after, first) = match member.is_required {
                true => (next, start),
                false => (self.rule(&format!("{next} | {after}")), self.rule(&format!("{start} | {first}"))),
            };
        }
        self.rule(&format!("{} {first}", literal("{")))
    }

    /// An object with any keys of the text.
    fn map(&mut self, values: &Value, path: &str, level: usize) -> Result<Symbol, SpanGrammarError> {
        let symbol = if *values == Value::Bool(false) { None } else { self.value(values, path, level + 1)? };
        let pair = symbol.and_then(|symbol| Some(format!("{} {} {symbol}", self.span(None)?, literal(":"))));
        let body = match pair {
            Some(pair) => format!("{} ({pair} ({} {pair})*)? {}", literal("{"), literal(","), literal("}")),
            None => literal("{}"),
        };
        Ok(Some(self.rule(&body)))
    }

    fn list(&mut self, schema: &Map<String, Value>, path: &str, level: usize) -> Result<Symbol, SpanGrammarError> {
        let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
        let (least, most) = (bound("minItems").unwrap_or(0), bound("maxItems"));
        if let Some(large) = [Some(least), most].into_iter().flatten().find(|bound| *bound > MOST_ITEMS) {
            let reason = format!("lists of {large} items are not supported, {MOST_ITEMS} is the limit, at `{}`", place(path));
            return Err(SpanGrammarError::Unsupported(reason));
        }
        if schema.get("items").is_some_and(Value::is_array) {
            let reason = format!("a list of schemas in `items` is not supported: write `prefixItems`, at `{}`", place(path));
            return Err(SpanGrammarError::Unsupported(reason));
        }
        let mut fixed = Vec::new();
        for (index, item) in schema.get("prefixItems").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let path = format!("{path}/{index}");
            fixed.push(self.value(item, &path, level + 1)?.ok_or(SpanGrammarError::NoValue(path))?);
        }
        let comma = literal(",");
        if !fixed.is_empty() {
            let count = fixed.len() as u64;
            if least > count || most.is_some_and(|most| most < count) {
                let reason = format!("`minItems` and `maxItems` beside `prefixItems` are not supported, at `{}`", place(path));
                return Err(SpanGrammarError::Unsupported(reason));
            }
            let body = format!("{} {} {}", literal("["), fixed.join(&format!(" {comma} ")), literal("]"));
            return Ok(Some(self.rule(&body)));
        }
        let items = schema.get("items").unwrap_or(&Value::Bool(true));
        let item = if *items == Value::Bool(false) || most == Some(0) {
            None
        } else {
            self.value(items, &format!("{path}/0"), level + 1)?
        };
        let empty = literal("[]");
        let Some(item) = item else {
            return if least == 0 { Ok(Some(self.rule(&empty))) } else { Err(SpanGrammarError::NoValue(format!("{path}/0"))) };
        };
        let further = match (least.saturating_sub(1), most.map(|most| most - 1)) {
            (_, Some(0)) => String::new(),
            (0, None) => format!("({comma} {item})*"),
            (least, Some(most)) => format!("({comma} {item}){{{least},{most}}}"),
            (least, None) => format!("({comma} {item}){{{least},}}"),
        };
        let full = format!("{} {item} {further} {}", literal("["), literal("]"));
        let body = if least == 0 { format!("{full} | {empty}") } else { full };
        Ok(Some(self.rule(&body)))
    }
}

/// A property of an object.
struct Member {
    /// The key as JSON, with its colon.
    key: String,
    symbol: String,
    is_required: bool,
}

fn types(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "object" => value.is_object(),
        "array" => value.is_array(),
        _ => false,
    }
}

/// The JSON Pointer, readable where it is empty.
fn place(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}
