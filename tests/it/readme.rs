//! The README pages: their commands are run, their configuration is loaded, their pipelines are parsed, and their links lead to something.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use tidemill::config::Config;
use tidemill::pipeline::definition::Definition;

use crate::harness::open_folder;
use crate::harness::trial::{Needs, trial};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The pages, in the order in which a reader comes to them: later commands read what earlier ones stored.
const PAGES: [&str; 4] = ["README.md", "pipelines/README.md", "deploy/README.md", "src/README.md"];

/// Pages whose links are checked as well.
const LINKED: [&str; 4] =
    [".github/CONTRIBUTING.md", "deploy/CHANGELOG.md", "pipelines/models/writer/README.md", "pipelines/samples/README.md"];

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    // It downloads where nothing is cached yet, and measures.
    let commands = Needs::NOTHING.alone().within(Duration::from_secs(600));
    vec![
        trial!(commands, its_commands_do_what_they_say),
        trial!(Needs::NOTHING, its_configuration_is_one),
        trial!(Needs::NOTHING, its_pipelines_are_valid),
        trial!(Needs::NOTHING, its_links_lead_to_files_and_headings),
    ]
}

async fn its_commands_do_what_they_say() {
    let folder = open_folder();
    symlink(Path::new(ROOT).join("pipelines"), folder.path().join("pipelines")).unwrap();
    let blocks = blocks("sh");
    let lines: Vec<&str> = blocks.iter().flat_map(|block| block.lines()).collect();
    assert!(lines.len() > 5, "the pages show hardly any command: {lines:?}");
    for line in lines {
        // This very test run is `cargo test`.
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
        // An alias that `.cargo/config.toml` makes of it.
        ["cargo", "demo", ..] => &words[1..],
        _ => panic!("a page shows a command that no test knows how to run: {line}"),
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
    let [text] = blocks("toml").try_into().expect("the pages show one configuration");
    std::fs::write(&file, text).unwrap();
    let config = Config::layered(Some(&file), [], &[]).unwrap();
    assert_eq!(config.pipelines, folder.path().join("pipelines"));
    assert_eq!(config.database.url.as_deref(), Some("postgres://u:p@h:5432/d"));
}

async fn its_pipelines_are_valid() {
    let whole: Vec<String> = blocks("yaml").into_iter().filter(|block| block.starts_with("version:")).collect();
    assert!(!whole.is_empty(), "the pages show no whole pipeline");
    for text in whole {
        Definition::parse(&Path::new(ROOT).join("pipelines/shown.yaml"), &text).unwrap();
    }
}

async fn its_links_lead_to_files_and_headings() {
    for page in PAGES.iter().chain(&LINKED) {
        let text = page_text(page);
        // What stands between `](` and `)` is where a link leads.
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => Path::new(page).to_owned(),
                path => Path::new(page).parent().unwrap().join(path),
            };
            let file = Path::new(ROOT).join(&target);
            assert!(file.exists(), "{page} links to {link}, but there is no {}", target.display());
            if !heading.is_empty() {
                let headings: Vec<String> = std::fs::read_to_string(&file).unwrap().lines().filter_map(anchor).collect();
                assert!(headings.iter().any(|known| known == heading), "{page} links to {link}; its headings are {headings:?}");
            }
        }
    }
}

/// The name under which a heading can be linked to: lower case, hyphens for spaces, no other signs.
fn anchor(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').trim();
    let kept = heading.chars().filter(|sign| sign.is_alphanumeric() || matches!(sign, ' ' | '-' | '_'));
    Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

fn page_text(page: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The fenced blocks of all pages in the language.
fn blocks(language: &str) -> Vec<String> {
    PAGES.iter().flat_map(|page| blocks_of(&page_text(page), language)).collect()
}

fn blocks_of(text: &str, language: &str) -> Vec<String> {
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

/// Words as a shell would split them, as far as the pages need it: spaces, and double quotes around words with spaces.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    parts
        .flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}
