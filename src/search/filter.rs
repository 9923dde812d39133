//! The language of filters, as JSON and as lines of the command line.
//!
//! | JSON | line | holds where |
//! |---|---|---|
//! | `{"topic": "Sports"}`, `{"topic": {"eq": "Sports"}}` | `topic=Sports` | the value is that |
//! | `{"topic": ["Sports", "World"]}`, `{"topic": {"in": […]}}` | `topic in Sports,World` | it is one of those |
//! | `{"topic": {"ne": "Sports"}}` | `topic!=Sports` | it is another, or there is none |
//! | `{"facts.price": {"gte": 10, "lt": 50}}` | `facts.price>=10`, `facts.price<50` | it is a number, a text or a time, and stands so to the other |
//! | `{"facts.price": {"exists": true}}` | `facts.price exists`, `facts.price missing` | there is one, or there is none |
//!
//! A name is that of a classification task (its labels), of a task and something of its output (`facts.price`, `topic.confidence`,
//! `summary.text`), of a metadata field (`metadata.topic` where a task has the name, too), `document.id` or `document.updated_at`. Of a
//! list one item is enough. Dates and times are texts in ISO 8601; one without an offset is UTC.

use jiff::Timestamp;
use jiff::civil::DateTime;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{SearchConfig, SearchError, checked};
use crate::did_you_mean::suggestion;
use crate::store::{Comparison, FilterCondition, FilterPlace, FilterTest, SearchFilter};

/// The operators, as JSON names them.
const OPERATORS: [&str; 8] = ["eq", "ne", "lt", "lte", "gt", "gte", "in", "exists"];

/// Values that all conditions may name together.
const MOST_VALUES: usize = 1_000;

/// Conditions that a filter may have.
const MOST_CONDITIONS: usize = 64;

/// One condition as it is written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FilterClause {
    /// What is looked at.
    pub key: String,
    /// What must be true of it.
    pub test: ClauseTest,
}

/// What must be true of a value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClauseTest {
    /// It is this.
    Eq(Value),
    /// It is not this.
    Ne(Value),
    /// It is one of these.
    In(Vec<Value>),
    /// It is less than this.
    Lt(Value),
    /// It is this or less.
    Lte(Value),
    /// It is more than this.
    Gt(Value),
    /// It is this or more.
    Gte(Value),
    /// Whether there is one.
    Exists(bool),
}

impl FilterClause {
    /// Reads a line of the command line.
    ///
    /// # Errors
    /// Where it has no operator, or no name before it.
    pub fn line(line: &str) -> Result<Self, SearchError> {
        let refuse = || {
            let forms = "key=value, key!=value, key<value (also <=, > and >=), `key in a,b`, `key exists` or `key missing`";
            SearchError::Invalid(format!("the filter `{line}` is not of the form {forms}"))
        };
        let Some(at) = line.find(['=', '!', '<', '>']) else {
            return words(line).ok_or_else(refuse);
        };
        let (key, rest) = (line[..at].trim(), &line[at..]);
        let sign = ["!=", "<=", ">=", "==", "=", "<", ">"].into_iter().find(|sign| rest.starts_with(sign)).ok_or_else(refuse)?;
        if key.is_empty() {
            return Err(refuse());
        }
        // `topic in a=b` lists what has a sign of its own.
        if key.contains(char::is_whitespace) {
            return words(line).ok_or_else(refuse);
        }
        let value = rest[sign.len()..].trim();
        // `price=>50` is a slip of the pen and no text.
        if value.starts_with(['=', '<', '>']) {
            return Err(refuse());
        }
        let test = match sign {
            "!=" => ClauseTest::Ne(json!(value)),
            "<" => ClauseTest::Lt(spelled(value)),
            "<=" => ClauseTest::Lte(spelled(value)),
            ">" => ClauseTest::Gt(spelled(value)),
            ">=" => ClauseTest::Gte(spelled(value)),
            _ => ClauseTest::Eq(json!(value)),
        };
        Ok(Self { key: key.to_owned(), test })
    }

    /// Reads an object: a name and a value, a list, or operators with theirs.
    ///
    /// # Errors
    /// Where an operator or a value is none.
    pub fn object(object: Map<String, Value>) -> Result<Vec<Self>, SearchError> {
        let mut found = Vec::new();
        for (key, value) in object {
            let tests = match value {
                Value::Object(operators) if operators.is_empty() => {
                    return Err(SearchError::Invalid(format!("the filter `{key}` says nothing; {}", suggestion("", OPERATORS))));
                }
                Value::Object(operators) => operators.into_iter().map(|pair| operator(&key, pair)).collect::<Result<_, _>>()?,
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
                Value::String(text) => checked(&what, text)?,
                Value::Number(_) | Value::Bool(_) => {}
                _ => {
                    let mend = "to ask whether there is a value, write {\"exists\": true}";
                    return Err(SearchError::Invalid(format!("{what} must be a text, a number or a truth value; {mend}")));
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
    /// The filter that the conditions are, over what `pipeline` makes.
    pub(super) fn filter(&self, pipeline: &str, conditions: &[FilterClause]) -> Result<SearchFilter, SearchError> {
        if conditions.len() > MOST_CONDITIONS {
            let count = conditions.len();
            return Err(SearchError::Invalid(format!("the filter has {count} conditions; {MOST_CONDITIONS} are the most")));
        }
        let values: usize = conditions.iter().map(|condition| condition.values().len()).sum();
        if values > MOST_VALUES {
            return Err(SearchError::Invalid(format!("the filter names {values} values in all; {MOST_VALUES} are the most")));
        }
        let resolve = |condition: &FilterClause| {
            checked("a name in `filter`", &condition.key)?;
            let place = self.place(&condition.key).ok_or_else(|| {
                let names = self.filterable();
                let mend = suggestion(&condition.key, names.iter().map(String::as_str));
                let key = &condition.key;
                SearchError::Invalid(format!("pipeline `{pipeline}` has nothing named `{key}` to filter by; {mend}"))
            })?;
            let test = condition.test()?;
            if let (FilterPlace::UpdatedAt, FilterTest::Compared(_, value)) = (&place, &test) {
                return Err(SearchError::Invalid(format!(
                    "the filter `document.updated_at` compares with {value}, which is no time; write one such as 2026-01-31 or 2026-01-31T09:30:00Z"
                )));
            }
            Ok(FilterCondition { place, test })
        };
        Ok(SearchFilter { conditions: conditions.iter().map(resolve).collect::<Result<_, SearchError>>()? })
    }

    /// Where the value of that name stands.
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
                // A schema may leave open what an extraction finds.
                let is_open = known.kind == "extract" && known.fields.is_empty();
                let is_known = is_open || known.fields.iter().any(|field| field == path[0]);
                let path = std::iter::once("fields").chain(path.iter().copied()).map(str::to_owned).collect::<Vec<_>>();
                (is_known && path.iter().all(|step| !step.is_empty())).then_some(FilterPlace::Output(task, path))
            }
            _ => None,
        }
    }

    /// The metadata field that the key begins with, and the steps inside it. A field's own name may have dots.
    fn metadata_path(&self, key: &str) -> Option<Vec<String>> {
        let fits = |name: &&String| key.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let field = self.metadata.iter().filter(fits).max_by_key(|name| name.len())?;
        let steps = key[field.len()..].split('.').skip(1);
        Some(std::iter::once(field.as_str()).chain(steps).map(str::to_owned).collect())
    }

    /// Every name there is.
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

/// The forms without a sign.
fn words(line: &str) -> Option<FilterClause> {
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

fn operator(key: &str, (name, value): (String, Value)) -> Result<ClauseTest, SearchError> {
    let refuse = |wanted: &str| SearchError::Invalid(format!("the filter `{key}`: `{name}` takes {wanted}"));
    Ok(match name.as_str() {
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
            let mend = suggestion(other, OPERATORS);
            return Err(SearchError::Invalid(format!("the filter `{key}` has no operator `{other}`; {mend}")));
        }
    })
}

/// The number or truth value that a text of the command line spells; itself otherwise.
fn spelled(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(typed @ (Value::Number(_) | Value::Bool(_))) => typed,
        _ => json!(text),
    }
}

/// What is meant by a value: itself, and what its spelling means as a text, a number or a truth value.
fn alternatives(value: &Value) -> Vec<Value> {
    let other = match value {
        Value::String(text) => spelled(text),
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

/// The date or time that a text is, in the one spelling that every database reads.
fn moment(text: &str) -> Option<String> {
    let moment = match text.parse::<Timestamp>() {
        Ok(timestamp) => timestamp.to_string(),
        Err(_) => text.parse::<DateTime>().ok()?.to_string(),
    };
    // Years before Christ are spelled otherwise there.
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
        SearchConfig { embed: None, tasks, metadata: vec!["brand".into(), "made.in".into()], ..SearchConfig::default() }
    }

    fn resolved(line: &str) -> Result<FilterCondition, String> {
        let condition = FilterClause::line(line).map_err(|error| error.to_string())?;
        let filter = searchable().filter("p", &[condition]).map_err(|error| error.to_string())?;
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
        for (line, mend) in [("brnd=x", "`brand`"), ("facts.prise<3", "`facts.price`"), ("topik=x", "`topic`")] {
            let error = resolved(line).unwrap_err();
            assert!(error.ends_with(&format!("did you mean {mend}?")), "{error}");
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
            conditions.and_then(|all| searchable().filter("p", &all).map_err(|error| error.to_string())).unwrap_err()
        };
        assert!(
            refused(json!({"topic": {"between": 3}})).ends_with("known are `eq`, `ne`, `lt`, `lte`, `gt`, `gte`, `in`, `exists`")
        );
        assert!(refused(json!({"topic": {"lte ": 3}})).ends_with("did you mean `lte`?"));
        assert!(refused(json!({"topic": {"in": 3}})).ends_with("`in` takes a list"));
        assert!(refused(json!({"topic": null})).contains("must be a text, a number or a truth value"));
        assert!(refused(json!({"topic": {}})).contains("says nothing"));
    }

    #[test]
    fn a_slip_of_the_pen_is_no_value() {
        for line in ["price=>50", "price=<50", "price===50", "price>>50"] {
            assert!(FilterClause::line(line).unwrap_err().to_string().contains("is not of the form"), "{line}");
        }
        assert!(FilterClause::line("price==50").is_ok() && FilterClause::line("price!=50").is_ok());
    }
}
