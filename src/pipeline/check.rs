//! Checks that a pipeline treats the examples in its file as they expect.

use super::definition::Definition;
use super::definition_error::DefinitionProblem;
use super::example::{Example, Expectation, TaskExpectation};
use super::graph::{Graph, NoKnownResults};
use crate::document::avro::Schemas;
use crate::document::{DecodedRecord, Decoder, Document};
use crate::engine::Engine;
use crate::failure::Poison;
use crate::outcome::{Outcome, ReusedOutput};

/// Builds the tasks of `definition` and runs its examples. Nothing is written anywhere.
pub async fn check(definition: &Definition, engine: &Engine) -> Vec<DefinitionProblem> {
    let decoder = match Decoder::new(&definition.source.document.in_json()) {
        Ok(decoder) => decoder,
        Err(error) => return vec![DefinitionProblem::new(&definition.path, None, format!("{error:#}"))],
    };
    let graph = match Graph::build(definition, engine).await {
        Ok(graph) => graph,
        Err(error) => return vec![into_problem(definition, error)],
    };
    let mut problems = Vec::new();
    let mut kept: Vec<(usize, &Example)> = Vec::new();
    let mut documents: Vec<Document> = Vec::new();
    for (index, example) in definition.examples.iter().enumerate() {
        let decoded = decoder.decode(&example.record(index), &Schemas::none());
        let complaint = match (&example.expect, decoded) {
            (Expectation::Tasks(_), Ok(DecodedRecord::Document(document))) => {
                kept.push((index, example));
                documents.push(document);
                None
            }
            (Expectation::DeadLetter(class), Err(poison)) if poison.class == *class => None,
            (Expectation::DeadLetter(class), Err(poison)) => {
                Some(format!("expected a dead letter of class `{class}`, found {poison}"))
            }
            (Expectation::DeadLetter(class), Ok(_)) => {
                Some(format!("expected a dead letter of class `{class}`, but the record is a valid document"))
            }
            (Expectation::Tasks(_), Ok(DecodedRecord::Tombstone { .. })) => {
                Some("expected outputs, but the record is a delete".to_owned())
            }
            (Expectation::Tasks(_), Err(poison)) => Some(format!("expected outputs, found a dead letter: {poison}")),
        };
        problems.extend(complaint.map(|complaint| about(definition, index, example, &complaint)));
    }
    match graph.evaluate(&documents, &NoKnownResults).await {
        Ok(outcomes) => {
            for ((index, example), outcomes) in kept.into_iter().zip(outcomes) {
                for complaint in complaints(definition, example, &outcomes) {
                    problems.push(about(definition, index, example, &complaint));
                }
            }
        }
        Err(transient) => {
            problems.push(DefinitionProblem::new(&definition.path, None, format!("the examples cannot be run: {transient}")))
        }
    }
    problems
}

fn complaints(definition: &Definition, example: &Example, outcomes: &[Outcome]) -> Vec<String> {
    let Expectation::Tasks(expected) = &example.expect else { return Vec::new() };
    let mut complaints = Vec::new();
    for (task, outcome) in definition.tasks.iter().zip(outcomes) {
        let name = &task.name;
        let expectation = expected.iter().find(|(wanted, _)| **wanted == **name).map(|(_, expectation)| expectation);
        let output = match outcome {
            Outcome::Computed(computed) | Outcome::Reused(ReusedOutput::Copied(computed)) => Some(&computed.output),
            Outcome::Reused(ReusedOutput::Unchanged { output, .. }) => output.as_ref(),
            Outcome::Skipped(_) | Outcome::Dead(_) => None,
        };
        match (expectation, outcome, output) {
            // A task that fails is a problem, even where the example does not expect anything of it.
            (_, Outcome::Dead(Poison { class, reason }), _) => complaints.push(format!("task `{name}` fails: {class}: {reason}")),
            (Some(TaskExpectation::Skipped), Outcome::Skipped(_), _) | (None, ..) => {}
            (Some(TaskExpectation::Skipped), ..) => {
                complaints.push(format!("task `{name}` should be skipped, but has an output"))
            }
            (Some(TaskExpectation::Output(_)), Outcome::Skipped(skip), _) => {
                complaints.push(format!("task `{name}` should have an output, but is skipped ({})", skip.as_str()));
            }
            (Some(TaskExpectation::Output(expected)), _, Some(output)) => {
                complaints.extend(expected.mismatches(output).into_iter().map(|mismatch| format!("task `{name}`: {mismatch}")));
            }
            (Some(TaskExpectation::Output(_)), ..) => {
                complaints.push(format!("task `{name}` should have an output, but has none"))
            }
        }
    }
    complaints
}

fn about(definition: &Definition, index: usize, example: &Example, complaint: &str) -> DefinitionProblem {
    DefinitionProblem::new(&definition.path, example.place, format!("{}: {complaint}", example.title(index)))
}

fn into_problem(definition: &Definition, error: anyhow::Error) -> DefinitionProblem {
    match error.downcast::<DefinitionProblem>() {
        Ok(problem) => problem,
        Err(error) => DefinitionProblem::new(&definition.path, None, format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::config::EngineConfig;

    async fn problems(examples: &str) -> Vec<String> {
        problems_in("json", examples).await
    }

    async fn problems_in(format: &str, examples: &str) -> Vec<String> {
        let text = format!(
            "version: 1
name: test
source: {{ topic: docs, format: {format} }}
tasks:
  a: {{ render: {{ template: '{{{{ document.text }}}}' }}, when: document.characters > 2 }}
  b: {{ render: {{ template: '{{{{ document.fields.title }}}}' }} }}
examples:
{examples}"
        );
        let definition = Definition::parse(Path::new("p.yaml"), &text).unwrap();
        let engine = Engine::start(&EngineConfig::default(), &BTreeMap::new()).unwrap();
        check(&definition, &engine).await.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn examples_that_come_true_are_no_problem() {
        let examples = "
  - { document: { id: 1, text: xyz, title: t }, expect: { a: { text: xyz, contains: y }, b: { text: t } } }
  - { document: { id: 2, text: x, title: t }, expect: { a: skipped } }
  - { raw: '{', expect: { dead_letter: malformed_json } }
  - { raw: '{\"id\": 1}', expect: { dead_letter: missing_field } }";
        assert_eq!(problems(examples).await, [""; 0]);
    }

    #[tokio::test]
    async fn examples_of_a_source_of_avro_are_written_as_json() {
        let examples = "
  - { document: { id: 1, text: xyz, title: t }, expect: { a: { text: xyz }, b: { text: t } } }
  - { document: { id: 2, title: t }, expect: { dead_letter: missing_field } }";
        assert_eq!(problems_in("avro", examples).await, [""; 0]);
    }

    #[tokio::test]
    async fn each_example_that_fails_is_named_with_its_place() {
        let examples = "  - { name: one, document: { id: 1, text: xyz, title: t }, expect: { a: skipped, b: { text: u } } }
  - { document: { id: 2, text: xyz }, expect: { a: { contains: w } } }
  - { raw: '{}', expect: { dead_letter: malformed_json } }
  - { document: { id: 3, text: '' }, expect: { a: skipped } }
  - { document: { id: 4, text: ab, title: t }, expect: { dead_letter: too_large } }
  - { document: { id: 5, text: ab, title: t }, expect: { a: { text: ab } } }";
        let found = problems(examples).await;
        let expected = [
            "p.yaml:10:5: example 3: expected a dead letter of class `malformed_json`, found missing_field: field `id` is absent",
            "p.yaml:11:5: example 4: expected outputs, found a dead letter: empty_text: document `3` has no text",
            "p.yaml:12:5: example 5: expected a dead letter of class `too_large`, but the record is a valid document",
            "p.yaml:8:5: example `one`: task `a` should be skipped, but has an output",
            "p.yaml:8:5: example `one`: task `b`: expected the text `u`, found `t`",
            "p.yaml:9:5: example 2: task `a`: expected a text with `w` in it, found `xyz`",
            "p.yaml:9:5: example 2: task `b` fails: missing_field: field `document.fields.title` is absent, but the template reads it",
            "p.yaml:13:5: example 6: task `a` should have an output, but is skipped (condition)",
        ];
        assert_eq!(found, expected);
    }
}
