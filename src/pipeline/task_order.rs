//! Turns the entries under `tasks` into task definitions, and finds the order in which they run.
//!
//! A task runs after every task that it names. What happens where the other task has no output depends on where it is named:
//!
//! | named in | without the other task's output |
//! |---|---|
//! | `needs` | this task is skipped |
//! | this task's templates | this task is skipped, unless the other one is among its `optional` tasks |
//! | `when` only | this task is skipped, unless the condition tests `… is defined` |

use std::path::Path;
use std::sync::Arc;

use serde_saphyr::Spanned;

use super::definition_error::{position, suggestion};
use super::task_definition::{TaskDefinition, is_name};
use crate::task::TaskEntry;
use crate::template::{Condition, root};

/// Names that have another meaning where a task could be named.
const RESERVED: &[&str] = &["document", "dead_letter"];

/// The fields of a document that templates can read.
const DOCUMENT_FIELDS: &[&str] = &["id", "text", "version", "characters", "tokens", "metadata", "fields"];

type Position = Option<(u64, u64)>;

/// Checks the entries of the section at `section`. Paths of prompts and schemas are relative to `base_dir`.
pub(super) fn resolve(
    section: Position,
    entries: Vec<(String, Spanned<TaskEntry>)>,
    base_dir: &Path,
    report: &mut dyn FnMut(Position, String),
) -> Vec<TaskDefinition> {
    if entries.is_empty() {
        report(section, "the pipeline has no tasks: add at least one".into());
    }
    let names: Vec<Arc<str>> = entries.iter().map(|(name, _)| name.as_str().into()).collect();
    let mut tasks: Vec<TaskDefinition> = Vec::new();
    for (name, entry) in entries {
        let at = position(&entry);
        if !is_name(&name, '_') || RESERVED.contains(&name.as_str()) {
            report(
                at,
                format!(
                    "`{name}` is not a task name: use lower-case letters, digits and `_`, a letter first, and none of {}",
                    RESERVED.join(", ")
                ),
            );
        }
        if tasks.iter().any(|task| *task.name == *name) {
            report(at, format!("there are two tasks `{name}`: rename one"));
        }
        let (when, wanted) = (entry.value.when.clone(), entry.value.needs.clone());
        let spec = match entry.value.spec() {
            Ok(spec) => spec,
            Err(problem) => {
                report(at, format!("task `{name}` {problem}"));
                continue;
            }
        };
        for problem in spec.problems(base_dir) {
            report(at, format!("task `{name}` {problem}"));
        }
        let mut needs = Vec::new();
        for need in wanted {
            add(&mut needs, &need, &names, &mut |message| report(at, format!("task `{name}` needs {message}")));
        }
        let mut watches = Vec::new();
        for optional in spec.optional() {
            add(&mut watches, optional, &names, &mut |message| report(at, format!("task `{name}` has as optional {message}")));
        }
        let is_optional = |path: &str| spec.optional().iter().any(|other| other == root(path));
        for path in spec.reads(base_dir).into_iter().filter(|path| !is_optional(path)) {
            check_read(&path, &mut needs, &names, &mut |message| {
                report(at, format!("the template of task `{name}` reads {message}"))
            });
        }
        match when.as_deref().map(Condition::new) {
            Some(Ok(condition)) => {
                for path in condition.variables() {
                    let mut wrong = |message| report(at, format!("the condition of task `{name}` reads {message}"));
                    check_read(path, &mut watches, &names, &mut wrong);
                }
            }
            Some(Err(error)) => report(at, format!("the condition of task `{name}` cannot be read: {error}")),
            None => {}
        }
        watches.retain(|watch| !needs.contains(watch));
        let place = at.unwrap_or_default();
        tasks.push(TaskDefinition { name: name.into(), spec, when, needs, watches, level: 0, place });
    }
    check_counting(&tasks, base_dir, report);
    order(&mut tasks, report);
    tasks
}

fn check_read(path: &str, found: &mut Vec<Arc<str>>, names: &[Arc<str>], wrong: &mut dyn FnMut(String)) {
    if root(path) != "document" {
        return add(found, root(path), names, wrong);
    }
    if let Some(unknown) = unknown_field(path) {
        wrong(unknown);
    }
}

/// A message if the path reads a field of a document that no document has, with the nearest field that exists.
pub(super) fn unknown_field(path: &str) -> Option<String> {
    let field = path.strip_prefix("document.")?.split('.').next().filter(|field| !DOCUMENT_FIELDS.contains(field))?;
    let near = suggestion(field, DOCUMENT_FIELDS.iter().copied());
    Some(format!("`document.{field}`, which no document has{near} (the source's own fields are under `document.fields`)"))
}

fn add(found: &mut Vec<Arc<str>>, name: &str, names: &[Arc<str>], wrong: &mut dyn FnMut(String)) {
    match names.iter().find(|known| ***known == *name) {
        Some(known) if !found.contains(known) => found.push(known.clone()),
        Some(_) => {}
        None => {
            wrong(format!("`{name}`, which is not a task{}", suggestion(name, names.iter().map(|n| &**n).chain(["document"]))))
        }
    }
}

/// Whether the path of a template reads `document.tokens`, by name or as part of the whole document.
pub(super) fn reads_tokens(path: &str) -> bool {
    path == "document" || path == "document.tokens"
}

fn check_counting(tasks: &[TaskDefinition], base_dir: &Path, report: &mut dyn FnMut(Position, String)) {
    if tasks.iter().any(|task| task.spec.model().is_some()) {
        return;
    }
    for task in tasks {
        let condition = task.when.as_deref().and_then(|when| Condition::new(when).ok());
        let reads = task.spec.reads(base_dir);
        let paths = condition.iter().flat_map(|c| c.variables()).chain(&reads);
        if paths.into_iter().any(|path| path == "document.tokens") {
            let message = format!(
                "task `{}` reads `document.tokens`, but no task has a model to count tokens with: use `document.characters`",
                task.name
            );
            report(Some(task.place), message);
        }
    }
}

/// Sets each task's level, or reports a cycle.
fn order(tasks: &mut [TaskDefinition], report: &mut dyn FnMut(Position, String)) {
    // A path with more steps than tasks contains a cycle, so this many rounds determine every level that is not on or behind a
    // cycle.
    for _ in 0..tasks.len() {
        for index in 0..tasks.len() {
            let before = before(&tasks[index]).filter_map(|name| tasks.iter().find(|task| task.name == *name));
            tasks[index].level = before.map(|task| task.level + 1).max().unwrap_or(0);
        }
    }
    let Some(start) = tasks.iter().find(|task| task.level >= tasks.len()) else { return };
    let mut path = vec![start];
    loop {
        let last = path[path.len() - 1];
        let deepest = before(last).filter_map(|name| tasks.iter().find(|task| task.name == *name)).max_by_key(|task| task.level);
        let Some(next) = deepest else { return };
        if let Some(from) = path.iter().position(|task| task.name == next.name) {
            let mut names: Vec<&str> = path[from..].iter().map(|task| &*task.name).collect();
            names.push(&next.name);
            return report(Some(next.place), format!("tasks wait for each other: {}", names.join(" needs ")));
        }
        path.push(next);
    }
}

fn before(task: &TaskDefinition) -> impl Iterator<Item = &Arc<str>> {
    task.needs.iter().chain(&task.watches)
}
