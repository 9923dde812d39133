//! The house rules, read off the source: imports go down, libraries stay in their rooms, files stay short, packages need only those below.
//!
//! A room is a folder of `src`, or a file beside its folder; those of the package `base` are rooms of their own, each other package is one.
//! The first floor listed is the ground. Rooms on one floor do not know each other, save on the ground, which is one vocabulary,
//! and under the roof, where everything is put together.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;

/// The packages inside `src` and which others of ours each may need; the root package may need all.
const PACKAGES: &[(&str, &[&str])] = &[("kernels", &[]), ("base", &[]), ("engine", &["base", "kernels"]), ("store", &["base"])];

/// The rooms of each floor, the ground floor first.
const FLOORS: &[&[&str]] = &[
    &[
        "access",
        "base",
        "cache",
        "checkpoint",
        "config",
        "document",
        "failpoint",
        "failure",
        "health",
        "http",
        "kernels",
        "metrics",
        "did_you_mean",
        "outcome",
        "prompt",
        "record",
        "template",
        "terminal",
        "yaml",
    ],
    &["broker", "engine", "store"],
    &["sink", "source", "task"],
    &["pipeline"],
    &["copy", "dashboard", "explain", "jobs", "leads", "recommend", "search"],
    &["server"],
    &["app", "cli", "demo", "lib", "main"],
];

/// Libraries that only some files may name, by the beginning of their paths.
const KEPT_IN: &[(&str, &[&str])] = &[
    ("unsafe", &["kernels/"]),
    ("sqlx", &["store/"]),
    ("axum", &["server/"]),
    ("rdkafka", &["broker.rs", "source/kafka", "sink/topics", "demo/"]),
    ("candle_core", &["engine/"]),
    ("candle_nn", &["engine/"]),
    ("candle_flash_attn", &["engine/gpu/flash"]),
    ("candle_transformers", &["engine/"]),
    ("object_store", &["source/archive"]),
    ("cronexpr", &["jobs/"]),
    ("hyper", &["server/"]),
    ("hyper_util", &["server/"]),
    ("tower_service", &["server/"]),
];

/// Beyond this a file has more than one job.
const LINES: usize = 450;

/// The checks, for the test binary's main.
pub fn trials() -> Vec<Trial> {
    macro_rules! trial {
        ($name:ident) => {
            Trial::test(concat!("floors::", stringify!($name)), || {
                $name();
                Ok(())
            })
        };
    }
    vec![
        trial!(every_file_keeps_the_house_rules),
        trial!(an_import_that_climbs_is_found_however_it_is_written),
        trial!(an_import_that_goes_sideways_is_found),
        trial!(imports_that_go_down_or_stay_in_the_room_pass),
        trial!(a_library_outside_its_room_is_found),
        trial!(a_file_without_a_floor_and_one_too_long_are_found),
        trial!(packages_need_only_those_below),
    ]
}

fn every_file_keeps_the_house_rules() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&source, &source, &mut files);
    assert!(files.iter().any(|(path, _)| path == "lib.rs"), "no sources were found under {}", source.display());
    let found: Vec<String> = files.iter().flat_map(|(path, text)| faults(path, text)).collect();
    assert!(found.is_empty(), "the house rules are broken:\n  {}", found.join("\n  "));
}

fn an_import_that_climbs_is_found_however_it_is_written() {
    let sentence = "src/task/echo.rs:1 imports `pipeline` (floor 3) from `task` (floor 2): imports go down only";
    for text in [
        "use crate::pipeline::graph::Graph;",
        "use crate::{outcome::Output, pipeline::{graph::Graph}};",
        "use super::super::pipeline;",
        "use super::super::{outcome, pipeline};",
        "fn f(graph: &crate::pipeline::graph::Graph) {}",
        "use tidemill::pipeline::graph;",
    ] {
        assert_eq!(faults("task/echo.rs", text), [sentence], "for {text}");
    }
    let nested = "mod tests {\n    use super::super::super::pipeline;\n}";
    assert_eq!(faults("task/echo.rs", nested), [sentence.replace(":1 ", ":2 ")]);
    let sentence = "src/base/echo.rs:1 imports `store` (floor 1) from `echo`";
    assert!(faults("base/record.rs", "use tidemill_store::Store;")[0].starts_with(&sentence.replace("echo", "record")));
}

fn an_import_that_goes_sideways_is_found() {
    let sentence = "src/store/lib.rs:1 imports `engine` from `store`: rooms on floor 1 do not know each other";
    assert_eq!(faults("store/lib.rs", "use tidemill_engine::Engine;"), [sentence]);
    assert_eq!(
        faults("broker.rs", "use crate::engine::Engine;"),
        [sentence.replace("store/lib", "broker").replace("store", "broker")]
    );
}

fn imports_that_go_down_or_stay_in_the_room_pass() {
    let text = "//! See crate::server.\nuse crate::{engine::Engine, task::Task};\nuse super::Other; /* crate::cli */\n\
                mod tests { use super::*; use super::super::labels; const TEXT: &str = \"use crate::cli;\"; }\npub(crate) fn f() {}";
    assert_eq!(faults("task/echo.rs", text), [""; 0]);
    assert_eq!(faults("base/health.rs", "use crate::metrics::METRICS;"), [""; 0], "the ground floor is one vocabulary");
    assert_eq!(faults("store/jobs.rs", "use crate::pipeline::Row;\nuse super::super::search;"), [""; 0], "a package's own paths");
    assert_eq!(faults("engine/plan.rs", "use tidemill_base::failure::Failure;\nuse tidemill_kernels::Packed;"), [""; 0]);
    assert_eq!(faults("demo.rs", "use crate::app;"), [""; 0], "everything meets under the roof");
}

fn a_library_outside_its_room_is_found() {
    let sentence = "src/task/echo.rs:2 names `sqlx`, which is kept in store/";
    assert_eq!(faults("task/echo.rs", "fn f() {\n    sqlx::query(\"SELECT 1\");\n}"), [sentence]);
    assert_eq!(faults("sink/topics.rs", "use rdkafka::producer;"), [""; 0]);
    assert_eq!(faults("sink/parquet.rs", "use rdkafka::producer;").len(), 1);
    assert_eq!(faults("kernels/pages.rs", "unsafe fn f() {}"), [""; 0]);
    assert_eq!(faults("engine/plan.rs", "unsafe fn f() {}").len(), 1);
}

fn a_file_without_a_floor_and_one_too_long_are_found() {
    assert_eq!(faults("utils.rs", ""), ["src/utils.rs: room `utils` is on no floor; give it one in tests/it/floors.rs"]);
    assert_eq!(
        faults("task/echo.rs", "use crate::utils::x;"),
        ["src/task/echo.rs:1 imports `utils`, which is on no floor; give it one in tests/it/floors.rs"]
    );
    assert_eq!(
        faults("task/echo.rs", &"\n".repeat(451)),
        ["src/task/echo.rs has 451 lines; 450 are the most, so give a part its own file"]
    );
}

fn packages_need_only_those_below() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (package, below) in PACKAGES {
        let text = fs::read_to_string(source.join(package).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let needed = manifest.get(kind).and_then(|found| found.as_table()).into_iter().flat_map(toml::Table::keys);
            for other in needed.filter_map(|name| name.strip_prefix("tidemill-")) {
                assert!(
                    below.contains(&other),
                    "src/{package}/Cargo.toml needs `{other}`; `{package}` may need {below:?} of ours"
                );
            }
        }
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            files.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// What is wrong with the file at `path` below `src`, a sentence each.
fn faults(path: &str, text: &str) -> Vec<String> {
    let (package, within) = package_of(path);
    let room = package.filter(|package| *package != "base").unwrap_or_else(|| within.split(['/', '.']).next().unwrap());
    let Some(floor) = floor_of(room) else {
        return vec![format!("src/{path}: room `{room}` is on no floor; give it one in tests/it/floors.rs")];
    };
    let mut found = Vec::new();
    let tokens = tokens(text);
    for (line, other) in imports(path, &tokens) {
        let place = format!("src/{path}:{line}");
        match floor_of(other) {
            _ if other == room => {}
            None => found.push(format!("{place} imports `{other}`, which is on no floor; give it one in tests/it/floors.rs")),
            Some(above) if above > floor => found
                .push(format!("{place} imports `{other}` (floor {above}) from `{room}` (floor {floor}): imports go down only")),
            Some(same) if same == floor && floor != 0 && floor != FLOORS.len() - 1 => {
                found.push(format!("{place} imports `{other}` from `{room}`: rooms on floor {floor} do not know each other"))
            }
            Some(_) => {}
        }
    }
    for (library, rooms) in KEPT_IN {
        let named = tokens.iter().find(|(_, token)| token == library);
        if let Some((line, _)) = named.filter(|_| !rooms.iter().any(|room| path.starts_with(room))) {
            found.push(format!("src/{path}:{line} names `{library}`, which is kept in {}", rooms.join(", ")));
        }
    }
    let lines = text.lines().count();
    if lines > LINES {
        found.push(format!("src/{path} has {lines} lines; {LINES} are the most, so give a part its own file"));
    }
    found
}

/// The package that the file at `path` below `src` belongs to, none for the root's, and the path within it.
fn package_of(path: &str) -> (Option<&str>, &str) {
    match path.split_once('/') {
        Some((package, within)) if PACKAGES.iter().any(|(name, _)| *name == package) => (Some(package), within),
        _ => (None, path),
    }
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The rooms that paths in the file lead to, with the line of each.
fn imports<'a>(path: &str, tokens: &[(usize, &'a str)]) -> Vec<(usize, &'a str)> {
    let (package, within) = package_of(path);
    // What a path from the package's root leads to: a room, save in the packages that are one.
    let is_one_room = package.is_some_and(|package| package != "base");
    let stem = within.trim_end_matches(".rs").trim_end_matches("/mod");
    let depth_of_file = if ["lib", "main"].contains(&stem) { 0 } else { stem.split('/').count() };
    // One entry an open brace: whether it opens a module, which takes one more `super` to leave.
    let mut braces: Vec<bool> = Vec::new();
    let mut found = Vec::new();
    let word = |at: usize| tokens.get(at).map_or("", |(_, token)| *token);
    let mut at = 0;
    while at < tokens.len() {
        match word(at) {
            "{" => braces.push(at >= 2 && word(at - 2) == "mod"),
            "}" => drop(braces.pop()),
            "crate" if word(at + 1) == "::" && !is_one_room => rooms_at_root(tokens, at + 2, &mut found),
            "tidemill" | "tidemill_base" if word(at + 1) == "::" => rooms_at_root(tokens, at + 2, &mut found),
            // Only the head of a path counts: `super` inside one was counted with it.
            "super" if word(at + 1) == "::" && (at == 0 || word(at - 1) != "::") => {
                let depth = depth_of_file + braces.iter().filter(|module| **module).count();
                let supers = (0..).take_while(|n| word(at + 2 * n) == "super" && word(at + 2 * n + 1) == "::").count();
                if supers == depth && !is_one_room {
                    rooms_at_root(tokens, at + 2 * supers, &mut found);
                }
            }
            name => {
                found.extend(name.strip_prefix("tidemill_").filter(|_| word(at + 1) == "::").map(|room| (tokens[at].0, room)))
            }
        }
        at += 1;
    }
    found
}

/// The rooms named where a path has reached the crate's root: one, or those of a group.
fn rooms_at_root<'a>(tokens: &[(usize, &'a str)], start: usize, found: &mut Vec<(usize, &'a str)>) {
    let Some((line, first)) = tokens.get(start) else { return };
    if *first != "{" {
        // A path may end at the root: `use super::*` in a file directly below it.
        found.extend(first.starts_with(|c: char| c.is_alphabetic()).then_some((*line, *first)));
        return;
    }
    let mut depth = 0;
    for (index, (line, token)) in tokens.iter().enumerate().skip(start) {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            name if depth == 1 && ["{", ","].contains(&tokens[index - 1].1) => found.push((*line, name)),
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

/// Words, `::` and single other characters, each with its line; comments and the insides of texts left out.
fn tokens(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    let line_of = |rest: &str| text[..text.len() - rest.len()].matches('\n').count() + 1;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = literal(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push((line_of(rest), &rest[..length]));
            length
        } else if first.is_whitespace() {
            first.len_utf8()
        } else {
            let length = if rest.starts_with("::") { 2 } else { first.len_utf8() };
            found.push((line_of(rest), &rest[..length]));
            length
        };
        rest = &rest[length..];
    }
    found
}

/// The length of the text or character that `rest` begins with.
fn literal(rest: &str) -> Option<usize> {
    let raw = rest.trim_start_matches(['b', 'r']);
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    if rest.len() - raw.len() <= 2 && rest[..rest.len() - raw.len()].ends_with('r') && raw[hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let start = rest.len() - raw.len() + hashes + 1;
        return Some(rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len()));
    }
    let quote = rest.chars().next().filter(|c| ['"', '\''].contains(c))?;
    // A lifetime has no closing quote after one character.
    if quote == '\'' && !rest[1..].starts_with('\\') && rest.chars().nth(2) != Some('\'') {
        return Some(1);
    }
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}
