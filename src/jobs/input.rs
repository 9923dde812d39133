//! The input files of a local backfill: all files that match some patterns, below one folder.

use std::path::{Component, Path, PathBuf};

use crate::config::ConfigError;
use crate::source::{WalkError, find_files};

/// Files below a folder that is opened as a dataset. No link and no `..` leads out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFiles {
    /// The patterns as absolute paths, so that they identify the input whatever the working directory is.
    pub patterns: Vec<String>,
    /// The folder that contains everything that the patterns can match. It depends only on the patterns, not on the files that
    /// exist.
    pub folder: PathBuf,
    /// The keys of the files below it, in order.
    pub keys: Vec<String>,
}

/// A pattern, split before its first part with a wildcard.
struct SplitPattern {
    base: PathBuf,
    rest: String,
}

impl InputFiles {
    /// Finds the files that match the patterns. A path without a wildcard is a pattern too.
    ///
    /// # Errors
    /// Where a pattern is invalid, matches no file, or matches a file that is not Parquet.
    pub fn find(patterns: &[String]) -> Result<Self, ConfigError> {
        let cuts = patterns.iter().map(|pattern| cut(pattern)).collect::<Result<Vec<_>, _>>()?;
        let bases: Vec<&Path> = cuts.iter().map(|cut| cut.base.as_path()).collect();
        let folder = common(&bases).ok_or_else(|| ConfigError("--input names no file; write a path or a pattern".into()))?;
        let mut keys = Vec::new();
        for (SplitPattern { base, rest }, pattern) in cuts.iter().zip(patterns) {
            let fault = |error: WalkError| ConfigError(format!("--input {pattern:?}: {error}"));
            let below = base.strip_prefix(&folder).unwrap_or(Path::new(""));
            let found = find_files(&folder, below, rest).map_err(fault)?;
            let hidden = match found.hidden {
                0 => String::new(),
                count => {
                    format!("not counting {count} with names that start with `.` or `_`, which query engines ignore; ")
                }
            };
            if !hidden.is_empty() {
                tracing::info!(pattern, "{hidden}write the `.` or `_` in the pattern to read them");
            }
            if found.keys.is_empty() {
                return Err(ConfigError(format!(
                    "no file matches --input {pattern:?}; {hidden}the pattern may need quotes in the shell"
                )));
            }
            if let Some(other) = found.keys.iter().find(|key| !key.ends_with(".parquet")) {
                let shown = folder.join(other);
                let message = format!("{} is not a .parquet file; write a pattern that does not match it", shown.display());
                return Err(ConfigError(message));
            }
            keys.extend(found.keys);
        }
        keys.sort();
        keys.dedup();
        let mut patterns: Vec<String> = cuts.iter().map(|cut| format!("{}/{}", cut.base.display(), cut.rest)).collect();
        patterns.sort();
        Ok(Self { patterns, folder, keys })
    }
}

fn cut(pattern: &str) -> Result<SplitPattern, ConfigError> {
    let fault = |what: &dyn std::fmt::Display| ConfigError(format!("--input {pattern:?}: {what}"));
    let whole = std::path::absolute(pattern).map_err(|e| fault(&e))?;
    if whole.is_dir() {
        return Err(fault(&"it is a folder; name files, such as `folder/*.parquet`"));
    }
    let parts: Vec<Component<'_>> = whole.components().collect();
    let is_pattern = |part: &Component<'_>| part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let end = parts.iter().position(is_pattern).unwrap_or(parts.len() - 1);
    let (base, rest) = parts.split_at(end);
    if rest.contains(&Component::ParentDir) {
        return Err(fault(&"`..` follows a wildcard; write the pattern without it"));
    }
    let base: PathBuf = base.iter().collect();
    let base = base.canonicalize().map_err(|e| fault(&format!("cannot find the folder {}: {e}", base.display())))?;
    let rest: PathBuf = rest.iter().collect();
    Ok(SplitPattern { base, rest: rest.to_string_lossy().into_owned() })
}

/// The deepest folder that contains all of them.
fn common(folders: &[&Path]) -> Option<PathBuf> {
    let mut folder = folders.first()?.to_path_buf();
    while !folders.iter().all(|other| other.starts_with(&folder)) {
        folder = folder.parent()?.to_path_buf();
    }
    Some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        folder
    }

    fn find(folder: &tempfile::TempDir, patterns: &[&str]) -> Result<InputFiles, String> {
        let patterns: Vec<String> = patterns.iter().map(|pattern| format!("{}/{pattern}", folder.path().display())).collect();
        InputFiles::find(&patterns).map_err(|error| error.0)
    }

    #[test]
    fn patterns_of_several_folders_are_read_below_the_one_that_holds_them() {
        let files = folder(&["a/1.parquet", "a/2.parquet", "b/deep/3.parquet", "c/4.parquet"]);
        let input = find(&files, &["a/*.parquet", "b/**/*.parquet", "a/1.parquet"]).unwrap();
        assert_eq!(input.folder, files.path().canonicalize().unwrap());
        assert_eq!(input.keys, ["a/1.parquet", "a/2.parquet", "b/deep/3.parquet"], "each once, and nothing else");
        let one = find(&files, &["a/*.parquet"]).unwrap();
        assert_eq!((one.folder.ends_with("a"), one.keys.len()), (true, 2));
    }

    #[test]
    fn the_folder_does_not_depend_on_the_files_that_are_there() {
        let files = folder(&["a/1.parquet"]);
        let before = find(&files, &["*/*.parquet"]).unwrap();
        std::fs::create_dir(files.path().join("b")).unwrap();
        std::fs::write(files.path().join("b/2.parquet"), "").unwrap();
        let after = find(&files, &["*/*.parquet"]).unwrap();
        assert_eq!((&before.folder, &before.patterns), (&after.folder, &after.patterns));
        assert_eq!((before.keys, after.keys), (vec!["a/1.parquet".into()], vec!["a/1.parquet".into(), "b/2.parquet".into()]));
    }

    #[test]
    fn names_that_no_engine_takes_for_data_are_left_out_and_no_others() {
        use std::os::unix::ffi::OsStringExt;

        let files = folder(&["t/1.parquet", "t/_delta_log/2.parquet", "t/.3.parquet", "u/_temporary/4.parquet"]);
        let odd = std::ffi::OsString::from_vec(b"caf\xe9.parquet".to_vec());
        std::fs::write(files.path().join("t").join(odd), "").unwrap();
        std::os::unix::fs::symlink("nowhere", files.path().join("t/gone.parquet")).unwrap();
        let keys = find(&files, &["t/**/*.parquet"]).unwrap().keys;
        assert_eq!(keys, ["1.parquet", "caf\u{fffd}.parquet", "gone.parquet"], "what cannot be read fails for itself");
        let error = find(&files, &["u/**/*.parquet"]).unwrap_err();
        assert!(error.contains("not counting 1 with names that start with `.` or `_`"), "{error}");
        assert_eq!(find(&files, &["u/_temporary/*.parquet"]).unwrap().keys, ["4.parquet"]);
    }

    #[test]
    fn what_cannot_be_an_input_is_refused_in_a_sentence() {
        let files = folder(&["a/1.parquet", "a/notes.txt"]);
        assert!(find(&files, &["a"]).unwrap_err().contains("it is a folder; name files"));
        assert!(find(&files, &["b/*.parquet"]).unwrap_err().contains("cannot find the folder"));
        assert!(find(&files, &["a/*.csv"]).unwrap_err().starts_with("no file matches"));
        assert!(find(&files, &["a/*"]).unwrap_err().contains("notes.txt is not a .parquet file"));
        assert!(find(&files, &["*/../a/*.parquet"]).unwrap_err().contains("`..` follows a wildcard"));
    }
}
