//! What is wrong with a pipeline file, and where.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::did_you_mean;

/// One fault of a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionProblem {
    /// The file.
    pub path: PathBuf,
    /// Line and column, both from 1, where the fault has a place.
    pub place: Option<(u64, u64)>,
    /// One sentence: the thing and the mend.
    pub message: String,
}

/// A pipeline file that cannot be used, with all that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionError {
    /// At least one.
    pub problems: Vec<DefinitionProblem>,
}

impl DefinitionProblem {
    /// A fault of the file at `path`.
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

/// [`did_you_mean::suggestion`] as the end of a sentence of this room.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    format!("; {}", did_you_mean::suggestion(word, known))
}
