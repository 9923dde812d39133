//! Problems of a pipeline file, with their places.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_saphyr::Spanned;

use crate::did_you_mean;

/// One problem of a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionProblem {
    pub path: PathBuf,
    /// Line and column, both from 1, where the problem has a place.
    pub place: Option<(u64, u64)>,
    /// One sentence: what is wrong, and how to fix it.
    pub message: String,
}

/// All problems of a pipeline file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionError {
    pub problems: Vec<DefinitionProblem>,
}

impl DefinitionProblem {
    /// A problem of the file at `path`.
    pub fn new(path: &Path, place: Option<(u64, u64)>, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), place, message: message.into() }
    }
}

impl fmt::Display for DefinitionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for DefinitionProblem {}

impl std::error::Error for DefinitionError {}

/// Line and column of a value, where the parser knows them.
pub(super) fn position<T>(spanned: &Spanned<T>) -> Option<(u64, u64)> {
    let at = spanned.referenced;
    (at.line() > 0).then(|| (at.line(), at.column()))
}

/// [`did_you_mean::suggestion`] as the end of a sentence.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    format!("; {}", did_you_mean::suggestion(word, known))
}
