//! The rules of the source tree, read off the source: imports go down, modules of one folder form no circle, libraries are named
//! only where they belong, files stay short, what is public says what it is, packages need only those below.
//!
//! A room is a folder of `src`, or a file beside its folder. The modules of the package `base` are rooms of their own; each other
//! package is one room. The first floor listed is the lowest. Rooms on one floor do not import each other, except on the lowest,
//! whose types everything shares, and on the top, where everything is put together.

mod circles;
mod docs;
mod imports;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use libtest_mimic::Trial;

use imports::{Import, imports, module_of, tokens};

/// The packages inside `src` and which others of ours each may need; the root package may need all.
const PACKAGES: &[(&str, &[&str])] = &[("kernels", &[]), ("base", &[]), ("engine", &["base", "kernels"]), ("store", &["base"])];

/// The rooms of each floor, the lowest first.
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
    ("axum", &["server"]),
    ("rdkafka", &["broker.rs", "source/kafka", "sink/topics", "demo"]),
    ("candle_core", &["engine/"]),
    ("candle_nn", &["engine/"]),
    ("candle_flash_attn", &["engine/gpu/flash"]),
    ("candle_transformers", &["engine/"]),
    ("object_store", &["source/archive"]),
    ("cronexpr", &["jobs"]),
    ("hyper", &["server"]),
    ("hyper_util", &["server"]),
    ("tower_service", &["server"]),
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
        trial!(modules_of_one_folder_form_no_circle),
        trial!(what_is_public_says_what_it_is_and_no_comment_only_repeats_a_name),
        trial!(an_import_that_climbs_is_found_however_it_is_written),
        trial!(an_import_that_goes_sideways_is_found),
        trial!(imports_that_go_down_or_stay_in_the_room_pass),
        trial!(a_circle_of_siblings_is_found_also_through_their_parent),
        trial!(parents_and_children_may_import_each_other),
        trial!(a_library_outside_its_room_is_found),
        trial!(a_file_without_a_floor_and_one_too_long_are_found),
        trial!(an_item_without_a_comment_and_a_comment_of_three_words_are_found),
        trial!(packages_need_only_those_below),
    ]
}

/// Every source file: its path below `src`, and its text.
static SOURCES: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&source, &source, &mut files);
    assert!(files.iter().any(|(path, _)| path == "lib.rs"), "no sources were found under {}", source.display());
    files
});

fn every_file_keeps_the_house_rules() {
    assert_none(SOURCES.iter().flat_map(|(path, text)| faults(path, text)).collect());
}

fn modules_of_one_folder_form_no_circle() {
    assert_none(circles::circles(&SOURCES, &packages()));
}

fn what_is_public_says_what_it_is_and_no_comment_only_repeats_a_name() {
    assert_none(SOURCES.iter().flat_map(|(path, text)| docs::faults(path, text)).collect());
}

fn assert_none(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} rules of the source tree are broken:\n  {}", faults.len(), faults.join("\n  "));
}

/// The names of the packages inside `src`.
fn packages() -> Vec<&'static str> {
    PACKAGES.iter().map(|(name, _)| *name).collect()
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
    assert_eq!(
        faults("base/health.rs", "use crate::metrics::METRICS;"),
        [""; 0],
        "everything shares the types of the lowest floor"
    );
    assert_eq!(faults("store/jobs.rs", "use crate::pipeline::Row;\nuse super::super::search;"), [""; 0], "a package's own paths");
    assert_eq!(faults("engine/plan.rs", "use tidemill_base::failure::Failure;\nuse tidemill_kernels::Packed;"), [""; 0]);
    assert_eq!(faults("demo.rs", "use crate::app;"), [""; 0], "everything is put together on the top floor");
}

/// What [`circles::circles`] says of files given by path and text.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<_> = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    circles::circles(&files, &packages())
}

fn a_circle_of_siblings_is_found_also_through_their_parent() {
    let sentence = "the modules batch, plan of src/pipeline import each other in a circle; move what they share to a file of its own: \
                    src/pipeline/batch.rs:1 imports `pipeline::plan::Plan`; src/pipeline/plan.rs:2 imports `pipeline::batch::Batch`";
    let [folder, batch] = [("pipeline.rs", "mod batch;\nmod plan;"), ("pipeline/batch.rs", "use super::plan::Plan;")];
    assert_eq!(
        circles_of(&[folder, batch, ("pipeline/plan.rs", "\nuse crate::pipeline::batch::{Batch, self};")]),
        [sentence.replace("::Batch`", "::Batch`; src/pipeline/plan.rs:2 imports `pipeline::batch`")]
    );
    assert_eq!(circles_of(&[folder, batch, ("pipeline/plan.rs", "\nfn f(batch: &super::batch::Batch) {}")]), [sentence]);

    // The parent hands on what is a sibling's, under one name or from a folder below it.
    let parent = ("pipeline.rs", "mod batch;\nmod plan;\npub use batch::Batch;\nuse self::plan::{Plan, steps::Step};");
    let steps = ("pipeline/plan/steps.rs", "use crate::pipeline::Batch;");
    let found = circles_of(&[parent, ("pipeline/plan.rs", ""), steps, ("pipeline/batch.rs", "use super::Step;")]);
    assert_eq!(found.len(), 1, "{found:?}");
    for import in ["src/pipeline/plan/steps.rs:1 imports `pipeline::Batch`", "src/pipeline/batch.rs:1 imports `pipeline::Step`"] {
        assert!(found[0].contains(import), "{found:?}");
    }

    // Three in a row, in a package of its own, one of them in its tests.
    let found = circles_of(&[
        ("engine/lib.rs", "mod a; mod b; mod c; pub use a::Tokens;"),
        ("engine/a.rs", "use crate::b::B;"),
        ("engine/b.rs", "mod tests {\n    use super::super::c;\n}"),
        ("engine/c.rs", "use tidemill_base::record::Record;\nuse crate::Tokens;"),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("the modules a, b, c of src/engine import each other in a circle"), "{found:?}");
}

fn parents_and_children_may_import_each_other() {
    let nobody = [""; 0];
    let parent = ("task/checks.rs", "use self::words::Word;\nuse crate::task::evidence::Evidence;\npub struct Check;");
    let child = ("task/checks/words.rs", "use super::Check;\nuse super::super::evidence;\nmod tests { use super::*; }");
    assert_eq!(
        circles_of(&[parent, child, ("task/evidence.rs", "//! See [`super::checks`].\nuse super::Task;"), ("task.rs", "")]),
        nobody
    );
    let siblings = [
        ("task.rs", ""),
        ("task/a.rs", "use super::b::B;"),
        ("task/b.rs", "use super::c::C;"),
        ("task/c.rs", "const A: &str = \"super::a\";"),
    ];
    assert_eq!(circles_of(&siblings), nobody, "one way only");
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

fn an_item_without_a_comment_and_a_comment_of_three_words_are_found() {
    let found = docs::faults(
        "task/echo.rs",
        "//! What echoes.\n\n/// Repeats what it is given.\n#[derive(Debug)]\npub struct Echo {\n    /// Its text.\n    pub text: String,\n}\n\n\
         impl Echo {\n    #[must_use]\n    pub async fn say(&self) {}\n    pub(super) fn hear(&self) {}\n}\n",
    );
    assert_eq!(
        found,
        [
            "src/task/echo.rs:6 says no more than `Its text.`: leave it out where the name says that, or write a sentence",
            "src/task/echo.rs:12 has no doc comment, and `pub async fn say` is public",
        ]
    );
    let help = "//! Flags.\n\n/// Flags.\n#[derive(Debug, Args)]\npub struct Flags {\n    /// As JSON\n    pub json: bool,\n}\n";
    assert_eq!(docs::faults("cli/echo.rs", help), [""; 0], "a help text may be short");
    assert_eq!(docs::faults("cli/echo.rs", "use super::Flags;\n").len(), 1, "a file says what it holds");
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
    let (package, module) = module_of(path, &packages());
    let room = match package {
        "" | "base" => module.first().copied().unwrap_or("lib"),
        package => package,
    };
    let Some(floor) = floor_of(room) else {
        return vec![format!("src/{path}: room `{room}` is on no floor; give it one in tests/it/floors.rs")];
    };
    let mut found = Vec::new();
    let tokens = tokens(text);
    let imports = imports(package, &module, &tokens);
    // The packages that are one room have no rooms inside.
    let outside = imports.iter().filter(|import| ["", "base"].contains(&package) || import.package != package);
    for (import, other) in outside.filter_map(|import| Some((import, room_of(import)?))) {
        let place = format!("src/{path}:{}", import.line);
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
    // A group of imports from one room is one fault.
    found.dedup();
    let lines = text.lines().count();
    if lines > LINES {
        found.push(format!("src/{path} has {lines} lines; {LINES} are the most, so give a part its own file"));
    }
    found
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The room that an import leads to, where it is one: the packages that are one room name their own modules.
fn room_of(import: &Import) -> Option<&str> {
    match import.package.as_str() {
        "" | "base" => import.path.first().map(String::as_str),
        package => Some(package),
    }
}
