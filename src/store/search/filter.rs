//! Conditions on documents, as SQL over a row `d` of `documents`.
//!
//! | place | what is tested |
//! |---|---|
//! | label | every label that a classification gave |
//! | confidence, text, output | a column or a value inside the details of a task's result |
//! | metadata | a value inside the document's metadata |
//! | id, time of the last update | a column of the document |
//!
//! Where a value is a list, one of its items is enough. Everything that a caller typed is bound, names and paths included; the text
//! of the statement is made of the pieces in this file alone.

use serde_json::{Map, Value, json};
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder};

/// Conditions that all must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SearchFilter {
    /// The conditions.
    pub conditions: Vec<FilterCondition>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterCondition {
    /// What is looked at.
    pub place: FilterPlace,
    /// What must be true of it.
    pub test: FilterTest,
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterPlace {
    /// The labels that a classification task gave.
    Label(String),
    /// How sure a task's model was.
    Confidence(String),
    /// The text that a task made.
    Text(String),
    /// A value in the stored details of a task's output, by its path.
    Output(String, Vec<String>),
    /// A value in the document's metadata, by its path; the first step is the field that the pipeline names.
    Metadata(Vec<String>),
    /// The document's id.
    Id,
    /// When the document was last written.
    UpdatedAt,
}

/// What must be true of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterTest {
    /// It is one of these.
    OneOf(Vec<Value>),
    /// It is none of these, or there is none.
    NoneOf(Vec<Value>),
    /// It is a number or a text, like the other, and stands so to it.
    Compared(Comparison, Value),
    /// It is a date or a time, and stands so to this one in ISO 8601, which is UTC where it names no offset.
    ComparedInTime(Comparison, String),
    /// Whether there is one, and it is not null.
    Exists(bool),
    /// It is of this kind.
    Holds(ValueKind),
}

/// Kinds of values that can be compared with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// A number.
    Number,
    /// A text.
    Text,
    /// True or false.
    Truth,
    /// A text that is a date or a time.
    Time,
}

impl ValueKind {
    /// What several of them are called.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Number => "numbers",
            Self::Text => "texts",
            Self::Truth => "truth values",
            Self::Time => "dates or times",
        }
    }

    /// The JSON path that finds one, or one in a list.
    fn path(self) -> &'static str {
        match self {
            Self::Number => r#"$[*] ? (@.type() == "number")"#,
            Self::Text => r#"$[*] ? (@.type() == "string")"#,
            Self::Truth => r#"$[*] ? (@.type() == "boolean")"#,
            Self::Time => r#"$[*] ? (@ like_regex "^[0-9]{4}-[0-9]{2}-[0-9]{2}")"#,
        }
    }
}

/// How two values stand to each other.
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
    /// As pipeline files, command lines, SQL and its JSON paths write it.
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
    /// Whether every document passes.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Writes ` AND …` for each condition.
    pub(crate) fn push(&self, sql: &mut QueryBuilder<Postgres>) {
        for condition in &self.conditions {
            sql.push("\n AND ");
            condition.push(sql);
        }
    }
}

impl FilterCondition {
    pub(super) fn push(&self, sql: &mut QueryBuilder<Postgres>) {
        // What must not be is asked as what must be, so that a missing value is none of anything.
        let (test, negated) = match &self.test {
            FilterTest::NoneOf(values) => (&FilterTest::OneOf(values.clone()), true),
            FilterTest::Exists(false) => (&FilterTest::Exists(true), true),
            test => (test, false),
        };
        // Without need nothing stands around a condition: an index is found only then.
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
    /// An expression of this file.
    Column(&'static str),
    /// What lies at a path inside a column.
    Inside(&'static str, &'a [String]),
}

impl Subject<'_> {
    fn push(&self, sql: &mut QueryBuilder<Postgres>) {
        match self {
            Self::Column(expression) => sql.push(expression),
            Self::Inside(column, path) => sql.push("(").push(column).push(" #> ").push_bind(path.to_vec()).push("::text[])"),
        };
    }

    /// A value of another kind than the one it is compared with fails the test and nothing else.
    fn test(&self, sql: &mut QueryBuilder<Postgres>, test: &FilterTest) {
        match test {
            FilterTest::OneOf(values) => self.by_path(sql, "$[*] ? (@ == $values[*])", json!({ "values": values })),
            FilterTest::Compared(comparison, operand) => {
                self.by_path(sql, &format!("$[*] ? (@ {} $value)", comparison.sign()), json!({ "value": operand }));
            }
            FilterTest::Holds(kind) => self.by_path(sql, kind.path(), json!({})),
            FilterTest::Exists(true) => self.by_path(sql, "$ ? (@ != null)", json!({})),
            FilterTest::ComparedInTime(comparison, moment) => self.in_time(sql, *comparison, moment),
            FilterTest::NoneOf(_) | FilterTest::Exists(false) => unreachable!("what is negated is asked the other way round"),
        }
    }

    fn by_path(&self, sql: &mut QueryBuilder<Postgres>, path: &str, given: Value) {
        sql.push("jsonb_path_exists(");
        self.push(sql);
        sql.push(", '").push(path).push("', ").push_bind(Json(given)).push(")");
    }

    /// A cast that fails would end the search; what is no time is merely not later than one.
    fn in_time(&self, sql: &mut QueryBuilder<Postgres>, comparison: Comparison, moment: &str) {
        sql.push("EXISTS (SELECT FROM jsonb_path_query(");
        self.push(sql);
        sql.push(
            ", '$[*]') AS item (value), LATERAL (SELECT item.value #>> '{}' AS spelled) AS s
             WHERE CASE WHEN s.spelled ~ '^\\d{4}-\\d\\d-\\d\\d' AND pg_input_is_valid(s.spelled, 'timestamptz')
                        THEN s.spelled::timestamptz ",
        );
        sql.push(comparison.sign()).push(" ").push_bind(moment.to_owned()).push("::text::timestamptz ELSE false END)");
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

/// Containment, where it can be asked: only that has an index.
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
