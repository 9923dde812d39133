//! Finds the files of a folder whose names match a pattern, by the conventions of data lake engines.
//!
//! Names that begin with `.` or `_` are logs, attempts and unfinished files, not data, except partitions such as `_day=1`. They are
//! skipped unless the pattern itself begins with that character. All other names are included. A name that is not UTF-8 is shown
//! with the character U+FFFD, and opening it returns an error.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use glob::{Pattern, PatternError};

/// The result of a search.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MatchedFiles {
    /// Keys of files and broken links, sorted.
    pub keys: Vec<String>,
    /// Number of hidden files and folders that were skipped.
    pub hidden: usize,
}

/// Why a folder could not be searched.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The pattern is invalid.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A folder could not be listed.
    #[error("cannot list the folder {}: {reason}; give this user read permission", .folder.display())]
    Folder { folder: PathBuf, reason: io::Error },
}

/// Whether a name marks something that is not data.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || name.starts_with('_') && !name.contains('=')
}

/// The files below the folder `within` of `root` that match the pattern. `**` matches any number of folders, including none. Keys
/// are relative to `root`.
///
/// # Errors
/// If the pattern is invalid or a folder cannot be listed.
pub fn find_files(root: &Path, within: &Path, pattern: &str) -> Result<MatchedFiles, WalkError> {
    let parts = pattern.split('/').filter(|part| !part.is_empty()).map(Pattern::new).collect::<Result<Vec<_>, _>>()?;
    let mut walk = FolderWalk { root, found: MatchedFiles::default() };
    walk.descend(&root.join(within), &parts)?;
    let mut found = walk.found;
    found.keys.sort();
    found.keys.dedup();
    Ok(found)
}

struct FolderWalk<'a> {
    root: &'a Path,
    found: MatchedFiles,
}

impl FolderWalk<'_> {
    fn descend(&mut self, folder: &Path, parts: &[Pattern]) -> Result<(), WalkError> {
        let Some((part, rest)) = parts.split_first() else { return Ok(()) };
        if part.as_str() == "**" {
            if rest.first().is_none_or(|next| next.as_str() != "**") {
                self.descend(folder, rest)?;
            }
            for path in entries(folder)?.iter().filter(|path| path.is_dir()) {
                warn_of_delta_table(path);
                match is_hidden(&name(path)) {
                    true => self.found.hidden += 1,
                    false if is_loop(path) => {}
                    false => self.descend(path, parts)?,
                }
            }
            return Ok(());
        }
        let is_literal = !part.as_str().contains(['*', '?', '[']);
        // A literal name does not require a listing of the folder.
        let paths = if is_literal { vec![folder.join(part.as_str())] } else { entries(folder)? };
        for path in paths {
            let name = name(&path);
            if !part.matches(&name) || path.symlink_metadata().is_err() {
                continue;
            }
            // A hidden name that the pattern spells out is included.
            if is_hidden(&name) && !part.as_str().starts_with(['.', '_']) {
                self.found.hidden += 1;
            } else if path.is_dir() {
                self.descend(&path, rest)?;
            } else if rest.is_empty()
                && let Ok(key) = path.strip_prefix(self.root)
            {
                self.found.keys.push(key.to_string_lossy().into_owned());
            }
        }
        Ok(())
    }
}

/// Warns about a Delta table. Its log, which says which files are valid, is not read.
fn warn_of_delta_table(path: &Path) {
    if name(path) == "_delta_log" {
        let folder = path.parent().unwrap_or(path).display();
        tracing::warn!(%folder, "a Delta table, whose log is not read: deleted rows are read as well; vacuum the table first");
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, WalkError> {
    let listed = fs::read_dir(folder).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    let mut entries: Vec<PathBuf> = listed.map_err(|reason| WalkError::Folder { folder: folder.to_owned(), reason })?;
    entries.sort();
    Ok(entries)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether the folder is a link to a folder that contains it.
fn is_loop(path: &Path) -> bool {
    let place = |path: &Path| path.canonicalize().ok();
    path.is_symlink() && path.parent().and_then(place).zip(place(path)).is_none_or(|(parent, own)| parent.starts_with(own))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn lake(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        folder
    }

    #[test]
    fn logs_attempts_and_files_in_the_making_are_no_data() {
        let lake = lake(&[
            "t/part-0.parquet",
            "t/.part-1.parquet",
            "t/_delta_log/1.checkpoint.parquet",
            "t/_temporary/0/part-2.parquet",
            "t/_day=1/x=2/part-3.parquet",
            "t/_SUCCESS",
        ]);
        let found = find_files(lake.path(), Path::new(""), "t/**/*.parquet").unwrap();
        assert_eq!(found.keys, ["t/_day=1/x=2/part-3.parquet", "t/part-0.parquet"]);
        assert_eq!(found.hidden, 3);
        assert_eq!(
            find_files(lake.path(), Path::new(""), "t/_delta_log/*.parquet").unwrap().keys,
            ["t/_delta_log/1.checkpoint.parquet"],
            "the pattern names the folder"
        );
        assert_eq!(find_files(lake.path(), Path::new(""), "t/.part*.parquet").unwrap().keys, ["t/.part-1.parquet"]);
        assert_eq!(find_files(lake.path(), Path::new("t/_day=1"), "*/*").unwrap().keys, ["t/_day=1/x=2/part-3.parquet"]);
        assert!(find_files(lake.path(), Path::new(""), "t/[").is_err());
    }

    #[test]
    fn no_name_is_left_out_for_its_letters_and_no_link_for_its_end() {
        let lake = lake(&["in/l.parquet"]);
        let odd = std::ffi::OsString::from_vec(b"caf\xe9.parquet".to_vec());
        fs::write(lake.path().join("in").join(odd), "").unwrap();
        symlink("nowhere", lake.path().join("in/gone.parquet")).unwrap();
        symlink(lake.path(), lake.path().join("in/round")).unwrap();
        assert_eq!(
            find_files(lake.path(), Path::new(""), "**/*.parquet").unwrap().keys,
            ["in/caf\u{fffd}.parquet", "in/gone.parquet", "in/l.parquet"]
        );
    }
}
