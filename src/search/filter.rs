//! Filters, as JSON and as lines of the command line.
//!
//! | JSON | line | meaning |
//! |---|---|---|
//! | `{"topic": "Sports"}`, `{"topic": {"eq": "Sports"}}` | `topic=Sports` | the value is this one |
//! | `{"topic": ["Sports", "World"]}`, `{"topic": {"in": […]}}` | `topic in Sports,World` | the value is one of these |
//! | `{"topic": {"ne": "Sports"}}` | `topic!=Sports` | the value is another one, or there is none |
//! | `{"facts.price": {"gte": 10, "lt": 50}}` | `facts.price>=10`, `facts.price<50` | the value is in this range |
//! | `{"facts.price": {"exists": true}}` | `facts.price exists`, `facts.price missing` | there is a value, or there is none |
//!
//! A name is a classification task (its labels), a task with a part of its output (`facts.price`, `topic.confidence`,
//! `summary.text`), a metadata field (`metadata.topic` if a task has the same name), `document.id` or `document.updated_at`. A list
//! matches if one of its items does. Dates and times are texts in ISO 8601; one without an offset is UTC.

use jiff::Timestamp;
use jiff::civil::DateTime;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{SearchConfig, SearchError, check_text};
use crate::did_you_mean::suggestion;
use crate::store::{Comparison, FilterCondition, FilterPlace, FilterTest, SearchFilter};

/// The operators, as JSON names them.
const OPERATORS: [&str; 8] = ["eq", "ne", "lt", "lte", "gt", "gte", "in", "exists"];

/// The maximum number of values in all conditions together.
const MAX_VALUES: usize = 1_000;

/// The maximum number of conditions in a filter.
const MAX_CONDITIONS: usize = 64;

/// A condition as it is written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FilterClause {
    /// The name of the value.
    pub key: String,
    /// What must be true of the value.
    pub test: ClauseTest,
}

/// What must be true of a value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClauseTest {
    /// It equals this value.
    Eq(Value),
    /// It does not equal this value, or there is none.
    Ne(Value),
    /// It equals one of these values.
    In(Vec<Value>),
    /// It is less than this value.
    Lt(Value),
    /// It is at most this value.
    Lte(Value),
    /// It is greater than this value.
    Gt(Value),
    /// It is at least this value.
    Gte(Value),
    /// There is a value, or there is none.
    Exists(bool),
}

impl FilterClause {
    /// Reads a line of the command line.
    ///
    /// # Errors
    /// If the line has no operator, or no name before it.
    pub fn line(line: &str) -> Result<Self, SearchError> {
        let refuse = || {
            let forms = "key=value, key!=value, key<value (also <=, > and >=), `key in a,b`, `key exists` or `key missing`";
            SearchError::Invalid(format!("the filter `{line}` is not of the form {forms}"))
        };
        let Some(at) = line.find(['=', '!', '<', '>']) else {
            return word_operator(line).ok_or_else(refuse);
        };
        let (key, rest) = (line[..at].trim(), &line[at..]);
        let sign = ["!=", "<=", ">=", "==", "=", "<", ">"].into_iter().find(|sign| rest.starts_with(sign)).ok_or_else(refuse)?;
        if key.is_empty() {
            return Err(refuse());
        }
        // In `topic in a=b`, the listed value contains a sign.
        if key.contains(char::is_whitespace) {
            return word_operator(line).ok_or_else(refuse);
        }
        let value = rest[sign.len()..].trim();
        // `price=>50` is a typing error, not a text that begins with `>`.
        if value.starts_with(['=', '<', '>']) {
            return Err(refuse());
        }
        let test = match sign {
            "!=" => ClauseTest::Ne(json!(value)),
            "<" => ClauseTest::Lt(parsed(value)),
            "<=" => ClauseTest::Lte(parsed(value)),
            ">" => ClauseTest::Gt(parsed(value)),
            ">=" => ClauseTest::Gte(parsed(value)),
            _ => ClauseTest::Eq(json!(value)),
        };
        Ok(Self { key: key.to_owned(), test })
    }

    /// Reads an object of names, each with a value, a list, or operators and their values.
    ///
    /// # Errors
    /// If an operator does not exist or has a value of the wrong type.
    pub fn object(object: Map<String, Value>) -> Result<Vec<Self>, SearchError> {
        let mut found = Vec::new();
        for (key, value) in object {
            let tests = match value {
                Value::Object(operators) if operators.is_empty() => {
                    return Err(SearchError::Invalid(format!(
                        "the filter `{key}` has no operator; {}",
                        suggestion("", OPERATORS)
                    )));
                }
                Value::Object(operators) => {
                    operators.into_iter().map(|(name, value)| operator(&key, &name, value)).collect::<Result<_, _>>()?
                }
                Value::Array(items) => vec![ClauseTest::In(items)],
                value => vec![ClauseTest::Eq(value)],
            };
            found.extend(tests.into_iter().map(|test| Self { key: key.clone(), test }));
        }
        Ok(found)
    }

    fn values(&self) -> &[Value] {
        match &self.test {
            ClauseTest::In(values) => values,
            ClauseTest::Eq(value)
            | ClauseTest::Ne(value)
            | ClauseTest::Lt(value)
            | ClauseTest::Lte(value)
            | ClauseTest::Gt(value)
            | ClauseTest::Gte(value) => std::slice::from_ref(value),
            ClauseTest::Exists(_) => &[],
        }
    }

    fn test(&self) -> Result<FilterTest, SearchError> {
        for value in self.values() {
            let what = format!("the filter `{}`", self.key);
            match value {
                Value::String(text) => check_text(&what, text)?,
                Value::Number(_) | Value::Bool(_) => {}
                _ => {
                    let fix = "to test whether there is a value, write {\"exists\": true}";
                    return Err(SearchError::Invalid(format!("{what} must be a text, a number or a truth value; {fix}")));
                }
            }
        }
        Ok(match &self.test {
            ClauseTest::Eq(value) => FilterTest::OneOf(alternatives(value)),
            ClauseTest::Ne(value) => FilterTest::NoneOf(alternatives(value)),
            ClauseTest::In(values) => FilterTest::OneOf(values.iter().flat_map(alternatives).collect()),
            ClauseTest::Lt(value) => compared(Comparison::Less, value),
            ClauseTest::Lte(value) => compared(Comparison::AtMost, value),
            ClauseTest::Gt(value) => compared(Comparison::Greater, value),
            ClauseTest::Gte(value) => compared(Comparison::AtLeast, value),
            ClauseTest::Exists(there) => FilterTest::Exists(*there),
        })
    }
}

impl SearchConfig {
    /// Resolves the names of conditions.
    pub(super) fn filter(&self, conditions: &[FilterClause]) -> Result<SearchFilter, SearchError> {
        if conditions.len() > MAX_CONDITIONS {
            let count = conditions.len();
            return Err(SearchError::Invalid(format!("the filter has {count} conditions; the maximum is {MAX_CONDITIONS}")));
        }
        let values: usize = conditions.iter().map(|condition| condition.values().len()).sum();
        if values > MAX_VALUES {
            return Err(SearchError::Invalid(format!("the filter has {values} values in all; the maximum is {MAX_VALUES}")));
        }
        let resolve = |condition: &FilterClause| {
            check_text("a name in `filter`", &condition.key)?;
            let place = self.place(&condition.key).ok_or_else(|| {
                let names = self.filterable();
                let near = suggestion(&condition.key, names.iter().map(String::as_str));
                let (pipeline, key) = (&self.name, &condition.key);
                SearchError::Invalid(format!("pipeline `{pipeline}` has nothing named `{key}` to filter by; {near}"))
            })?;
            let test = condition.test()?;
            if let (FilterPlace::UpdatedAt, FilterTest::Compared(_, value)) = (&place, &test) {
                return Err(SearchError::Invalid(format!(
                    "the filter `document.updated_at` compares with {value}, which is not a time; give one such as \
                     2026-01-31 or 2026-01-31T09:30:00Z"
                )));
            }
            Ok(FilterCondition { place, test })
        };
        Ok(SearchFilter { conditions: conditions.iter().map(resolve).collect::<Result<_, SearchError>>()? })
    }

    /// The place of the value with this name.
    fn place(&self, key: &str) -> Option<FilterPlace> {
        match key {
            "document.id" => return Some(FilterPlace::Id),
            "document.updated_at" => return Some(FilterPlace::UpdatedAt),
            _ => {}
        }
        let (first, rest) = key.split_once('.').unwrap_or((key, ""));
        let task = first.to_owned();
        let Some(known) = self.tasks.get(first) else {
            return self
                .metadata_path(key)
                .or_else(|| self.metadata_path(key.strip_prefix("metadata.")?))
                .map(FilterPlace::Metadata);
        };
        match (known.kind, rest) {
            ("classify", "" | "label" | "labels") => Some(FilterPlace::Label(task)),
            ("classify" | "extract" | "write" | "summarize", "confidence") => Some(FilterPlace::Confidence(task)),
            ("summarize" | "render" | "write", "" | "text") => Some(FilterPlace::Text(task)),
            ("score", "" | "value") => Some(FilterPlace::Output(task, vec!["value".to_owned()])),
            ("extract" | "write" | "compose", path) => {
                let path: Vec<&str> = path.strip_prefix("fields.").unwrap_or(path).split('.').collect();
                // Without fields, the schema allows any.
                let is_open = known.kind == "extract" && known.fields.is_empty();
                let is_known = is_open || known.fields.iter().any(|field| field == path[0]);
                let path = std::iter::once("fields").chain(path.iter().copied()).map(str::to_owned).collect::<Vec<_>>();
                (is_known && path.iter().all(|step| !step.is_empty())).then_some(FilterPlace::Output(task, path))
            }
            _ => None,
        }
    }

    /// The metadata field with which the key begins, and the path inside it. A field's own name may contain dots.
    fn metadata_path(&self, key: &str) -> Option<Vec<String>> {
        let fits = |name: &&String| key.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let field = self.metadata.iter().filter(fits).max_by_key(|name| name.len())?;
        let steps = key[field.len()..].split('.').skip(1);
        Some(std::iter::once(field.as_str()).chain(steps).map(str::to_owned).collect())
    }

    /// Every name that a filter can have.
    fn filterable(&self) -> Vec<String> {
        let of_task = |(name, known): (&String, &super::FilterableTask)| match known.kind {
            "classify" => vec![name.clone(), format!("{name}.confidence")],
            "extract" | "write" | "compose" => known.fields.iter().map(|field| format!("{name}.{field}")).collect(),
            "summarize" | "render" => vec![format!("{name}.text")],
            "score" => vec![name.clone()],
            _ => Vec::new(),
        };
        let mut names: Vec<String> = self.tasks.iter().flat_map(of_task).collect();
        names.extend(self.metadata.iter().cloned());
        names.extend(["document.id".to_owned(), "document.updated_at".to_owned()]);
        names
    }
}

/// Reads a condition whose operator is a word.
fn word_operator(line: &str) -> Option<FilterClause> {
    let (key, rest) = line.trim().split_once(char::is_whitespace)?;
    let test = match rest.trim() {
        "exists" => ClauseTest::Exists(true),
        "missing" => ClauseTest::Exists(false),
        rest => {
            let items = rest.strip_prefix("in").filter(|items| items.starts_with(char::is_whitespace))?;
            ClauseTest::In(items.split(',').map(|item| json!(item.trim())).collect())
        }
    };
    Some(FilterClause { key: key.to_owned(), test })
}

fn operator(key: &str, name: &str, value: Value) -> Result<ClauseTest, SearchError> {
    let refuse = |wanted: &str| SearchError::Invalid(format!("the filter `{key}`: the value of `{name}` must be {wanted}"));
    Ok(match name {
        "eq" => ClauseTest::Eq(value),
        "ne" => ClauseTest::Ne(value),
        "lt" => ClauseTest::Lt(value),
        "lte" => ClauseTest::Lte(value),
        "gt" => ClauseTest::Gt(value),
        "gte" => ClauseTest::Gte(value),
        "in" => match value {
            Value::Array(items) => ClauseTest::In(items),
            _ => return Err(refuse("a list")),
        },
        "exists" => ClauseTest::Exists(value.as_bool().ok_or_else(|| refuse("true or false"))?),
        other => {
            let near = suggestion(other, OPERATORS);
            return Err(SearchError::Invalid(format!("the filter `{key}` has no operator `{other}`; {near}")));
        }
    })
}

/// The number or truth value that a text of the command line spells, or else the text.
fn parsed(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(typed @ (Value::Number(_) | Value::Bool(_))) => typed,
        _ => json!(text),
    }
}

/// The values that match: the value, and the text, number or truth value with the same spelling.
fn alternatives(value: &Value) -> Vec<Value> {
    let other = match value {
        Value::String(text) => parsed(text),
        other => json!(other.to_string()),
    };
    if other == *value { vec![other] } else { vec![value.clone(), other] }
}

fn compared(comparison: Comparison, value: &Value) -> FilterTest {
    match value.as_str().and_then(moment) {
        Some(moment) => FilterTest::ComparedInTime(comparison, moment),
        None => FilterTest::Compared(comparison, value.clone()),
    }
}

/// The date or time in the text, in a spelling that the database reads.
fn moment(text: &str) -> Option<String> {
    let moment = match text.parse::<Timestamp>() {
        Ok(timestamp) => timestamp.to_string(),
        Err(_) => text.parse::<DateTime>().ok()?.to_string(),
    };
    // The database spells years before Christ differently.
    moment.starts_with(|c: char| c.is_ascii_digit()).then_some(moment)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::FilterableTask;
    use super::*;

    fn searchable() -> SearchConfig {
        let task = |kind, fields: &[&str]| FilterableTask {
            kind,
            fields: fields.iter().map(|field| (*field).to_owned()).collect(),
            choices: BTreeMap::new(),
        };
        let tasks = BTreeMap::from([
            ("topic".to_owned(), task("classify", &[])),
            ("facts".to_owned(), task("extract", &["price", "brand"])),
            ("vector".to_owned(), task("embed", &[])),
        ]);
        SearchConfig {
            name: "p".into(),
            embed: None,
            tasks,
            metadata: vec!["brand".into(), "made.in".into()],
            ..SearchConfig::default()
        }
    }

    fn resolved(line: &str) -> Result<FilterCondition, String> {
        let condition = FilterClause::line(line).map_err(|error| error.to_string())?;
        let filter = searchable().filter(&[condition]).map_err(|error| error.to_string())?;
        Ok(filter.conditions[0].clone())
    }

    #[test]
    fn names_lead_to_labels_outputs_and_metadata() {
        let place = |key: &str| resolved(&format!("{key} exists")).map(|condition| condition.place);
        assert_eq!(place("topic"), Ok(FilterPlace::Label("topic".into())));
        assert_eq!(place("topic.confidence"), Ok(FilterPlace::Confidence("topic".into())));
        let price = FilterPlace::Output("facts".into(), vec!["fields".into(), "price".into()]);
        assert_eq!(place("facts.price"), Ok(price.clone()));
        assert_eq!(place("facts.fields.price"), Ok(price));
        assert_eq!(place("made.in.year"), Ok(FilterPlace::Metadata(vec!["made.in".into(), "year".into()])));
        assert_eq!(place("metadata.brand"), Ok(FilterPlace::Metadata(vec!["brand".into()])));
        assert_eq!(place("document.updated_at"), Ok(FilterPlace::UpdatedAt));
    }

    #[test]
    fn a_name_that_nothing_has_suggests_the_nearest() {
        for (line, suggestion) in [("brnd=x", "`brand`"), ("facts.prise<3", "`facts.price`"), ("topik=x", "`topic`")] {
            let error = resolved(line).unwrap_err();
            assert!(error.ends_with(&format!("did you mean {suggestion}?")), "{error}");
        }
        assert!(resolved("vector=x").unwrap_err().starts_with("pipeline `p` has nothing named `vector` to filter by"));
    }

    #[test]
    fn lines_and_objects_say_the_same() {
        for (line, object) in [
            ("topic in Sports, World", json!({"topic": {"in": ["Sports", "World"]}})),
            ("facts.price<=50", json!({"facts.price": {"lte": 50}})),
            ("facts.price > 2.5", json!({"facts.price": {"gt": 2.5}})),
            ("brand!=Acme", json!({"brand": {"ne": "Acme"}})),
            ("brand=a=b", json!({"brand": "a=b"})),
            ("brand in a<b", json!({"brand": ["a<b"]})),
            ("brand missing", json!({"brand": {"exists": false}})),
        ] {
            let Value::Object(object) = object else { panic!("an object is written above") };
            assert_eq!(FilterClause::object(object).unwrap(), [FilterClause::line(line).unwrap()], "{line}");
        }
    }

    #[test]
    fn a_value_is_what_it_spells_and_a_date_is_compared_as_one() {
        assert_eq!(resolved("brand=12.5").unwrap().test, FilterTest::OneOf(vec![json!("12.5"), json!(12.5)]));
        let test = resolved("brand>=2025-03-01").unwrap().test;
        assert_eq!(test, FilterTest::ComparedInTime(Comparison::AtLeast, "2025-03-01T00:00:00".into()));
        let test = resolved("brand<2025-03-01T09:00:00+09:00").unwrap().test;
        assert_eq!(test, FilterTest::ComparedInTime(Comparison::Less, "2025-03-01T00:00:00Z".into()));
        assert_eq!(resolved("brand<b").unwrap().test, FilterTest::Compared(Comparison::Less, json!("b")));
    }

    #[test]
    fn what_is_no_condition_is_refused_with_a_sentence() {
        for line in ["topic", "=x", "!", "topic among a,b", ""] {
            assert!(FilterClause::line(line).unwrap_err().to_string().contains("is not of the form"), "{line}");
        }
        let refused = |object: Value| {
            let Value::Object(object) = object else { panic!("an object is given") };
            let conditions = FilterClause::object(object).map_err(|error| error.to_string());
            conditions.and_then(|all| searchable().filter(&all).map_err(|error| error.to_string())).unwrap_err()
        };
        assert!(
            refused(json!({"topic": {"between": 3}})).ends_with("known are `eq`, `ne`, `lt`, `lte`, `gt`, `gte`, `in`, `exists`")
        );
        assert!(refused(json!({"topic": {"lte ": 3}})).ends_with("did you mean `lte`?"));
        assert!(refused(json!({"topic": {"in": 3}})).ends_with("the value of `in` must be a list"));
        assert!(refused(json!({"topic": null})).contains("must be a text, a number or a truth value"));
        assert!(refused(json!({"topic": {}})).contains("has no operator"));
    }

    #[test]
    fn a_slip_of_the_pen_is_no_value() {
        for line in ["price=>50", "price=<50", "price===50", "price>>50"] {
            assert!(FilterClause::line(line).unwrap_err().to_string().contains("is not of the form"), "{line}");
        }
        assert!(FilterClause::line("price==50").is_ok() && FilterClause::line("price!=50").is_ok());
    }
}
