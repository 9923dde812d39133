//! From the entries of a file to tasks with their order.
//!
//! | a task is named in | it runs before | without its output |
//! |---|---|---|
//! | `needs` | yes | this one is skipped |
//! | the task's own template | yes | this one is skipped, unless it is among the task's `optional` |
//! | `when` only | yes | this one is skipped, unless the condition asks `… is defined` |

use std::path::Path;
use std::sync::Arc;

use super::definition::{TaskDefinition, is_name, place};
use super::definition_error::suggestion;
use super::file::TaskLines;
use crate::template::{Condition, root};

/// Names that mean something else where a task's name could stand.
const RESERVED: &[&str] = &["document", "dead_letter"];

/// What templates see of a document.
const DOCUMENT_FIELDS: &[&str] = &["id", "text", "version", "characters", "tokens", "metadata", "fields"];

type Place = Option<(u64, u64)>;

/// Paths of prompts and schemas are relative to `base_dir`.
pub(super) fn resolve(lines: TaskLines, base_dir: &Path, report: &mut dyn FnMut(Place, String)) -> Vec<TaskDefinition> {
    if lines.tasks.is_empty() {
        report(lines.place, "the pipeline has no tasks: add at least one".into());
    }
    let names: Vec<Arc<str>> = lines.tasks.iter().map(|(name, _)| name.as_str().into()).collect();
    let mut tasks: Vec<TaskDefinition> = Vec::new();
    for (name, entry) in lines.tasks {
        let at = place(&entry);
        if !is_name(&name, '_') || RESERVED.contains(&name.as_str()) {
            report(
                at,
                format!(
                    "`{name}` is no task name: use lower-case letters, digits and `_`, a letter first, and none of {}",
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
        for name_of_other in spec.optional() {
            add(&mut watches, name_of_other, &names, &mut |message| {
                report(at, format!("task `{name}` has as optional {message}"))
            });
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

/// What a path of a template names of a document that no document has, with the mend.
pub(super) fn unknown_field(path: &str) -> Option<String> {
    let field = path.strip_prefix("document.")?.split('.').next().filter(|field| !DOCUMENT_FIELDS.contains(field))?;
    let near = suggestion(field, DOCUMENT_FIELDS.iter().copied());
    Some(format!("`document.{field}`, which no document has{near} (the source's own fields are under `document.fields`)"))
}

fn add(found: &mut Vec<Arc<str>>, name: &str, names: &[Arc<str>], wrong: &mut dyn FnMut(String)) {
    match names.iter().find(|known| ***known == *name) {
        Some(known) if !found.contains(known) => found.push(known.clone()),
        Some(_) => {}
        None => wrong(format!("`{name}`, which is no task{}", suggestion(name, names.iter().map(|n| &**n).chain(["document"])))),
    }
}

/// Whether a path of a template shows `document.tokens`, by name or by showing the document as a whole.
pub(super) fn reads_tokens(path: &str) -> bool {
    path == "document" || path == "document.tokens"
}

fn check_counting(tasks: &[TaskDefinition], base_dir: &Path, report: &mut dyn FnMut(Place, String)) {
    if tasks.iter().any(|task| task.spec.model().is_some()) {
        return;
    }
    for task in tasks {
        let condition = task.when.as_deref().and_then(|when| Condition::new(when).ok());
        let reads = task.spec.reads(base_dir);
        let paths = condition.iter().flat_map(|c| c.variables()).chain(&reads);
        if paths.into_iter().any(|path| path == "document.tokens") {
            let message = format!(
                "task `{}` reads `document.tokens`, but no task has a model to count them with: use `document.characters`",
                task.name
            );
            report(Some(task.place), message);
        }
    }
}

/// Gives each task its level, or names a cycle.
fn order(tasks: &mut [TaskDefinition], report: &mut dyn FnMut(Place, String)) {
    // A longer path than there are tasks goes round in a circle, so this many rounds settle every level that can be settled.
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
