//! Conditions on documents, written as SQL over a row `d` of `documents`.
//!
//! | place | tested value |
//! |---|---|
//! | label | every label that a classification task gave |
//! | confidence, text, output | a column, or a value inside the details, of a task's result |
//! | metadata | a value inside the document's metadata |
//! | id, time of the last update | a column of the document |
//!
//! If a value is a list, one of its items must pass the test. All input of callers is bound as parameters, including names and
//! paths. The text of a statement consists only of string literals in this file.

use serde_json::{Map, Value, json};
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder};

/// Conditions that must all hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SearchFilter {
    pub conditions: Vec<FilterCondition>,
}

/// One condition of a filter.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterCondition {
    pub place: FilterPlace,
    pub test: FilterTest,
}

/// Which value of a document is tested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterPlace {
    /// The labels of this classification task.
    Label(String),
    /// The confidence of this task's result.
    Confidence(String),
    /// The text of this task's result.
    Text(String),
    /// A value in the stored details of this task's result, by its path.
    Output(String, Vec<String>),
    /// A value in the document's metadata, by its path. The first step is the metadata field of the pipeline file.
    Metadata(Vec<String>),
    Id,
    /// When the document was last written.
    UpdatedAt,
}

/// The test of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterTest {
    /// The value is one of these.
    OneOf(Vec<Value>),
    /// The value is none of these, or there is no value.
    NoneOf(Vec<Value>),
    /// The value is a number or a string, as this one is, and compares so with it.
    Compared(Comparison, Value),
    /// The value is a date or a time, and compares so with this one in ISO 8601. Without an offset it is in UTC.
    ComparedInTime(Comparison, String),
    /// Whether there is a value, and it is not null.
    Exists(bool),
    /// The value is of this kind.
    Holds(ValueKind),
}

/// Kinds of values that can be compared with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    Number,
    Text,
    Truth,
    /// A string that is a date or a time.
    Time,
}

impl ValueKind {
    /// The plural, for messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Number => "numbers",
            Self::Text => "texts",
            Self::Truth => "truth values",
            Self::Time => "dates or times",
        }
    }

    /// The JSON path of such a value, or of one in a list.
    fn path(self) -> &'static str {
        match self {
            Self::Number => r#"$[*] ? (@.type() == "number")"#,
            Self::Text => r#"$[*] ? (@.type() == "string")"#,
            Self::Truth => r#"$[*] ? (@.type() == "boolean")"#,
            Self::Time => r#"$[*] ? (@ like_regex "^[0-9]{4}-[0-9]{2}-[0-9]{2}")"#,
        }
    }
}

/// A comparison of two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

impl Comparison {
    /// The operator in pipeline files, on the command line, in SQL and in JSON paths.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }
}

impl SearchFilter {
    /// Whether there is no condition, so that every document passes.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Appends ` AND …` for each condition.
    pub(crate) fn push(&self, sql: &mut QueryBuilder<Postgres>) {
        for condition in &self.conditions {
            sql.push("\n AND ");
            condition.push(sql);
        }
    }
}

impl FilterCondition {
    pub(super) fn push(&self, sql: &mut QueryBuilder<Postgres>) {
        // A negative test is the negation of the positive one, so that a missing value passes it.
        let (test, negated) = match &self.test {
            FilterTest::NoneOf(values) => (&FilterTest::OneOf(values.clone()), true),
            FilterTest::Exists(false) => (&FilterTest::Exists(true), true),
            test => (test, false),
        };
        // Only a negative test is wrapped in an expression: the planner uses an index only for a plain condition.
        sql.push(if negated { "((" } else { "(" });
        match &self.place {
            FilterPlace::Label(task) => in_result(sql, task, |sql| labels(sql, test)),
            FilterPlace::Confidence(task) => {
                in_result(sql, task, |sql| Subject::Column("to_jsonb(r.confidence)").test(sql, test))
            }
            FilterPlace::Text(task) => in_result(sql, task, |sql| Subject::Column("to_jsonb(r.text)").test(sql, test)),
            FilterPlace::Output(task, path) => in_result(sql, task, |sql| Subject::Inside("r.fields", path).test(sql, test)),
            FilterPlace::Metadata(path) => metadata(sql, path, test),
            FilterPlace::Id => Subject::Column("to_jsonb(d.id)").test(sql, test),
            FilterPlace::UpdatedAt => Subject::Column("to_jsonb(d.updated_at)").test(sql, test),
        }
        sql.push(if negated { ") IS NOT TRUE)" } else { ")" });
    }
}

/// The JSON that is tested.
enum Subject<'a> {
    /// An expression that is a literal of this file.
    Column(&'static str),
    /// The value at a path inside a column.
    Inside(&'static str, &'a [String]),
}

impl Subject<'_> {
    fn push(&self, sql: &mut QueryBuilder<Postgres>) {
        match self {
            Self::Column(expression) => sql.push(expression),
            Self::Inside(column, path) => sql.push("(").push(column).push(" #> ").push_bind(path.to_vec()).push("::text[])"),
        };
    }

    /// A value of another kind than the one that it is compared with fails the test. It does not fail the query.
    fn test(&self, sql: &mut QueryBuilder<Postgres>, test: &FilterTest) {
        match test {
            FilterTest::OneOf(values) => self.by_path(sql, "$[*] ? (@ == $values[*])", json!({ "values": values })),
            FilterTest::Compared(comparison, operand) => {
                self.by_path(sql, &format!("$[*] ? (@ {} $value)", comparison.sign()), json!({ "value": operand }));
            }
            FilterTest::Holds(kind) => self.by_path(sql, kind.path(), json!({})),
            FilterTest::Exists(true) => self.by_path(sql, "$ ? (@ != null)", json!({})),
            FilterTest::ComparedInTime(comparison, time) => self.compared_in_time(sql, *comparison, time),
            FilterTest::NoneOf(_) | FilterTest::Exists(false) => unreachable!("negative tests are replaced by positive ones"),
        }
    }

    fn by_path(&self, sql: &mut QueryBuilder<Postgres>, path: &str, given: Value) {
        sql.push("jsonb_path_exists(");
        self.push(sql);
        sql.push(", '").push(path).push("', ").push_bind(Json(given)).push(")");
    }

    /// Checks that a value is a time before casting it, because a failed cast would fail the whole query.
    fn compared_in_time(&self, sql: &mut QueryBuilder<Postgres>, comparison: Comparison, time: &str) {
        sql.push("EXISTS (SELECT FROM jsonb_path_query(");
        self.push(sql);
        sql.push(
            ", '$[*]') AS item (value), LATERAL (SELECT item.value #>> '{}' AS spelled) AS s
             WHERE CASE WHEN s.spelled ~ '^\\d{4}-\\d\\d-\\d\\d' AND pg_input_is_valid(s.spelled, 'timestamptz')
                        THEN s.spelled::timestamptz ",
        );
        sql.push(comparison.sign()).push(" ").push_bind(time.to_owned()).push("::text::timestamptz ELSE false END)");
    }
}

fn in_result(sql: &mut QueryBuilder<Postgres>, task: &str, test: impl FnOnce(&mut QueryBuilder<Postgres>)) {
    sql.push("EXISTS (SELECT FROM results r WHERE r.pipeline = d.pipeline AND r.document_id = d.id AND r.task = ");
    sql.push_bind(task.to_owned()).push(" AND ");
    test(sql);
    sql.push(")");
}

fn labels(sql: &mut QueryBuilder<Postgres>, test: &FilterTest) {
    if let FilterTest::OneOf(values) = test {
        let texts: Vec<String> = values.iter().map(as_text).collect();
        sql.push("(r.label = ANY(").push_bind(texts.clone()).push(") OR r.fields -> 'labels' ?| ").push_bind(texts).push(")");
    } else {
        Subject::Column("coalesce(r.fields -> 'labels', to_jsonb(r.label))").test(sql, test);
    }
}

/// An equality test becomes a test of JSON containment, which has an index.
fn metadata(sql: &mut QueryBuilder<Postgres>, path: &[String], test: &FilterTest) {
    let FilterTest::OneOf(values) = test else {
        return Subject::Inside("d.metadata", path).test(sql, test);
    };
    let wanted: Vec<Json<Value>> =
        values.iter().flat_map(|value| [value.clone(), json!([value])]).map(|value| Json(nested(path, value))).collect();
    sql.push("d.metadata @> ANY(").push_bind(wanted).push(")");
}

fn nested(path: &[String], value: Value) -> Value {
    path.iter().rev().fold(value, |inner, step| Value::Object(Map::from_iter([(step.clone(), inner)])))
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
