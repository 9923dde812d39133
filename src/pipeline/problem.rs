//! What is wrong with a pipeline file, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// One fault of a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
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
    pub problems: Vec<Problem>,
}

impl Problem {
    /// A fault of the file at `path`.
    pub fn new(path: &Path, place: Option<(u64, u64)>, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), place, message: message.into() }
    }
}

impl fmt::Display for Problem {
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

impl std::error::Error for Problem {}

impl std::error::Error for DefinitionError {}

/// `; did you mean …?` where one of `known` is near to `name`, and else the whole list.
pub fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let nearest = known.iter().map(|k| (strsim::damerau_levenshtein(&name.to_lowercase(), &k.to_lowercase()), k)).min();
    match nearest {
        // A third of the letters may differ: `modle` is `model`, but `extract` is not `version`.
        Some((distance, nearest)) if distance <= name.chars().count().div_ceil(3) => format!("; did you mean `{nearest}`?"),
        Some(_) => format!("; known: {}", known.join(", ")),
        None => "; none is known".into(),
    }
}
