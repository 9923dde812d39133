//! README is right: its commands are run, and its configuration is loaded.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use tidemill::config::Config;

use crate::harness::open_folder;
use crate::harness::trial::{Needs, trial};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    // Downloads models on the first run, and measures time.
    let commands = Needs::NOTHING.alone().within(Duration::from_secs(600));
    vec![trial!(commands, its_commands_do_what_they_say), trial!(Needs::NOTHING, its_configuration_is_one)]
}

async fn its_commands_do_what_they_say() {
    let folder = open_folder();
    symlink(Path::new(ROOT).join("pipelines"), folder.path().join("pipelines")).unwrap();
    let blocks = blocks("sh");
    let lines: Vec<&str> = blocks.iter().flat_map(|block| block.lines()).collect();
    assert!(lines.len() > 5, "README shows hardly any command: {lines:?}");
    for line in lines {
        // This test is part of `cargo test`.
        if line != "cargo test" {
            run(line, folder.path());
        }
    }
}

fn run(line: &str, folder: &Path) {
    let words = words(line);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let arguments = match words.as_slice() {
        ["tidemill", arguments @ ..] => arguments,
        // An alias in `.cargo/config.toml`.
        ["cargo", "demo", ..] => &words[1..],
        _ => panic!("README shows a command that no test knows how to run: {line}"),
    };
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill")).args(arguments).current_dir(folder).output().unwrap();
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "`{line}` ends with {}: {told}", output.status);
    let last = said.lines().last().unwrap_or_default();
    if arguments.contains(&"--json") {
        let object: serde_json::Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("`{line}` prints {last:?}: {e}"));
        assert!(object.is_object(), "`{line}` prints {last:?}, which is no object");
    } else {
        assert!(!last.trim().is_empty(), "`{line}` says nothing on stdout; stderr: {told}");
    }
    if arguments[0] == "search" {
        assert!(!said.contains("nothing found") && !said.contains("\"hits\":[]"), "`{line}` finds nothing: {said}");
    }
}

async fn its_configuration_is_one() {
    let folder = open_folder();
    let file = folder.path().join("tidemill.toml");
    std::fs::create_dir(folder.path().join("secrets")).unwrap();
    std::fs::write(folder.path().join("secrets/database-url"), "postgres://u:p@h:5432/d").unwrap();
    let [text] = blocks("toml").try_into().expect("README shows one configuration");
    std::fs::write(&file, text).unwrap();
    let config = Config::layered(Some(&file), [], &[]).unwrap();
    assert_eq!(config.pipelines, folder.path().join("pipelines"));
    assert_eq!(config.database.url.as_deref(), Some("postgres://u:p@h:5432/d"));
}

/// README's fenced code blocks in that language.
fn blocks(language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let mut found: Vec<String> = Vec::new();
    let mut inside: Option<bool> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), inside) {
            (Some(opening), None) => {
                inside = Some(opening == language);
                found.extend((opening == language).then(String::new));
            }
            (Some(_), Some(_)) => inside = None,
            (None, Some(true)) => {
                let block = found.last_mut().unwrap();
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    found
}

/// Splits a command into words as a shell does, as far as README needs it: at spaces, except within double quotes.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    parts
        .flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}
