//! One task of a pipeline file.

use std::sync::Arc;

use crate::task::TaskSpec;

/// One task of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskDefinition {
    pub name: Arc<str>,
    /// Its kind and parameters.
    pub spec: TaskSpec,
    /// A condition on the document and on other tasks' outputs.
    pub when: Option<String>,
    /// Tasks whose outputs must exist: those under `needs` and those that the task's own templates read.
    pub needs: Vec<Arc<str>>,
    /// Tasks that run before this one, but whose outputs may be missing: those that only `when` reads, and the task's `optional`
    /// ones.
    pub watches: Vec<Arc<str>>,
    /// How many tasks must run one after the other before this one can.
    pub level: usize,
    /// Line and column in the file.
    pub place: (u64, u64),
}

/// Whether `name` has at most 63 characters: a lower-case letter, then lower-case letters, digits and `separator`.
pub(super) fn is_name(name: &str, separator: char) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == separator;
    name.len() <= 63 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(rest)
}
