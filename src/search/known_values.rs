//! Values of a filter against what there is: one that no document can have is a slip, and is said.
//!
//! | condition | refused where |
//! |---|---|
//! | `topic=outdor`, also with `!=` and `in` | the task has labels, or the field has choices, that are other ones, and no document has this one from earlier days |
//! | `price<abc`, `name>5`, `made<2025-01-01` | documents have values there, and none is of the kind of the one that they are compared with |

use std::collections::BTreeMap;

use serde_json::Value;

use super::{ClauseTest, FilterClause, SearchConfig, SearchError, Searcher};
use crate::did_you_mean::suggestion;
use crate::store::{FilterCondition, FilterPlace, FilterTest, SearchFilter, ValueKind};

/// The values that a task's output can have at some places: its labels under the empty name, and fields by theirs.
pub(super) type KnownValues = BTreeMap<String, Vec<String>>;

impl Searcher {
    /// The filter that the conditions are over what `pipeline` makes.
    ///
    /// # Errors
    /// Where a condition cannot be understood, or names a value that no document can have; where the database is out of order.
    pub(super) async fn checked_filter(
        &self,
        (name, pipeline): (&str, &SearchConfig),
        conditions: &[FilterClause],
    ) -> Result<SearchFilter, SearchError> {
        let filter = pipeline.filter(name, conditions)?;
        for (condition, resolved) in conditions.iter().zip(&filter.conditions) {
            self.check_choice((name, pipeline), condition, resolved).await?;
            self.check_kind(name, condition, resolved).await?;
        }
        Ok(filter)
    }

    async fn check_choice(
        &self,
        (name, pipeline): (&str, &SearchConfig),
        condition: &FilterClause,
        resolved: &FilterCondition,
    ) -> Result<(), SearchError> {
        let values = match &condition.test {
            ClauseTest::Eq(value) | ClauseTest::Ne(value) => std::slice::from_ref(value),
            ClauseTest::In(values) => values,
            _ => return Ok(()),
        };
        let Some(known) = pipeline.choices(&resolved.place) else { return Ok(()) };
        for value in values {
            let spelled = spelled(value);
            if known.contains(&spelled) {
                continue;
            }
            let alone = FilterClause { key: condition.key.clone(), test: ClauseTest::Eq(value.clone()) };
            let alone = pipeline.filter(name, &[alone])?;
            if !self.store.any(name, &alone.conditions[0]).await? {
                let (key, mend) = (&condition.key, suggestion(&spelled, known.iter().map(String::as_str)));
                return Err(SearchError::Invalid(format!("the filter `{key}` names `{spelled}`, which it never is; {mend}")));
            }
        }
        Ok(())
    }

    async fn check_kind(&self, name: &str, condition: &FilterClause, resolved: &FilterCondition) -> Result<(), SearchError> {
        let (kind, value) = match &resolved.test {
            FilterTest::Compared(_, value @ Value::Number(_)) => (ValueKind::Number, spelled(value)),
            FilterTest::Compared(_, value @ Value::Bool(_)) => (ValueKind::Truth, spelled(value)),
            FilterTest::Compared(_, value) => (ValueKind::Text, spelled(value)),
            FilterTest::ComparedInTime(_, moment) => (ValueKind::Time, moment.clone()),
            _ => return Ok(()),
        };
        let holds = |kind| FilterCondition { place: resolved.place.clone(), test: FilterTest::Holds(kind) };
        if self.store.any(name, &holds(kind)).await? {
            return Ok(());
        }
        for other in [ValueKind::Number, ValueKind::Time, ValueKind::Text, ValueKind::Truth] {
            if other != kind && self.store.any(name, &holds(other)).await? {
                let (key, wanted, found) = (&condition.key, kind.as_str(), other.as_str());
                let mend = format!("compare it with one of those, as {}", example(key, other));
                let message = format!(
                    "the filter `{key}` compares with `{value}`, but of `{key}` there are no {wanted}, only {found}; {mend}"
                );
                return Err(SearchError::Invalid(message));
            }
        }
        // Nothing is there yet, and so nothing is found.
        Ok(())
    }
}

impl SearchConfig {
    /// The values that can stand at the place, where they are known.
    fn choices(&self, place: &FilterPlace) -> Option<&Vec<String>> {
        match place {
            FilterPlace::Label(task) => self.tasks.get(task)?.choices.get(""),
            FilterPlace::Output(task, path) => match &path[..] {
                [fields, field] if fields == "fields" => self.tasks.get(task)?.choices.get(field),
                _ => None,
            },
            _ => None,
        }
    }
}

fn spelled(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn example(key: &str, kind: ValueKind) -> String {
    match kind {
        ValueKind::Number => format!("`{key}<50`"),
        ValueKind::Text => format!("`{key}<m`"),
        ValueKind::Truth => format!("`{key}<true`"),
        ValueKind::Time => format!("`{key}<2026-01-31`"),
    }
}
