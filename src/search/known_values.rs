//! Checks of filter values against the values that exist: a value that no document can have is reported as a mistake.
//!
//! | condition | refused if |
//! |---|---|
//! | `topic=outdor`, also with `!=` and `in` | the task's labels or the field's choices lack the value, and no document has it |
//! | `price<abc`, `name>5`, `made<2025-01-01` | documents have values there, but none of this type |

use std::collections::BTreeMap;

use serde_json::Value;

use super::{ClauseTest, FilterClause, SearchConfig, SearchError, Searcher};
use crate::did_you_mean::suggestion;
use crate::store::{FilterCondition, FilterPlace, FilterTest, SearchFilter, ValueKind};

/// The possible values of a task's output: labels under the empty name, choices of fields under the field's name.
pub(super) type KnownValues = BTreeMap<String, Vec<String>>;

impl Searcher {
    /// Resolves the conditions, and checks their values.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub(super) async fn checked_filter(
        &self,
        pipeline: &SearchConfig,
        clauses: &[FilterClause],
    ) -> Result<SearchFilter, SearchError> {
        let filter = pipeline.filter(clauses)?;
        for (clause, resolved) in clauses.iter().zip(&filter.conditions) {
            self.check_choice(pipeline, clause, resolved).await?;
            self.check_type(&pipeline.name, clause, resolved).await?;
        }
        Ok(filter)
    }

    async fn check_choice(
        &self,
        pipeline: &SearchConfig,
        clause: &FilterClause,
        resolved: &FilterCondition,
    ) -> Result<(), SearchError> {
        let values = match &clause.test {
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
            let alone = FilterClause { key: clause.key.clone(), test: ClauseTest::Eq(value.clone()) };
            let alone = pipeline.filter(&[alone])?;
            if !self.store.any(&pipeline.name, &alone.conditions[0]).await? {
                let (key, near) = (&clause.key, suggestion(&spelled, known.iter().map(String::as_str)));
                return Err(SearchError::Invalid(format!(
                    "the filter `{key}` names `{spelled}`, which is not a value of `{key}`; {near}"
                )));
            }
        }
        Ok(())
    }

    async fn check_type(&self, pipeline: &str, clause: &FilterClause, resolved: &FilterCondition) -> Result<(), SearchError> {
        let (kind, value) = match &resolved.test {
            FilterTest::Compared(_, value @ Value::Number(_)) => (ValueKind::Number, spelled(value)),
            FilterTest::Compared(_, value @ Value::Bool(_)) => (ValueKind::Truth, spelled(value)),
            FilterTest::Compared(_, value) => (ValueKind::Text, spelled(value)),
            FilterTest::ComparedInTime(_, moment) => (ValueKind::Time, moment.clone()),
            _ => return Ok(()),
        };
        let holds = |kind| FilterCondition { place: resolved.place.clone(), test: FilterTest::Holds(kind) };
        if self.store.any(pipeline, &holds(kind)).await? {
            return Ok(());
        }
        for other in [ValueKind::Number, ValueKind::Time, ValueKind::Text, ValueKind::Truth] {
            if other != kind && self.store.any(pipeline, &holds(other)).await? {
                let (key, wanted, found) = (&clause.key, kind.as_str(), other.as_str());
                let fix = format!("give one of those, as in {}", example(key, other));
                let message =
                    format!("the filter `{key}` compares with `{value}`, but `{key}` has no {wanted}, only {found}; {fix}");
                return Err(SearchError::Invalid(message));
            }
        }
        // No document has the field yet, so nothing is found.
        Ok(())
    }
}

impl SearchConfig {
    /// The possible values at this place, if they are known.
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
