//! Trains the head of a `classify` task from labelled rows.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::Value;

use super::definition::Definition;
use super::definition_error::suggestion;
use super::task_definition::TaskDefinition;
use crate::document::avro::Schemas;
use crate::document::{DecodedRecord, Decoder, Document, Format, look_up};
use crate::engine::{Chunking, Engine, ModelKind, Prediction, Request, TextKind, Work};
use crate::record::{Partition, Record, RecordLocation};
use crate::task::training::{TrainingExample, TrainingReport, TrainingSpec, train};
use crate::task::{ClassifySpec, TaskSpec};

/// Rows that are encoded at a time: enough to fill the device, and few enough to hold in memory.
const ROWS_AT_ONCE: usize = 512;

/// What to train from, and where to write the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainOptions {
    pub task: String,
    /// A file with one JSON object a line: the source's fields and the label.
    pub examples: PathBuf,
    /// The field that holds the label; for a multi-label task a label or a list of labels.
    pub label_field: String,
    /// Where to write the head. Default: the task's `head`, and without one `heads/<task>.safetensors` beside the pipeline file.
    pub output: Option<PathBuf>,
}

/// The result of a training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainReport {
    /// The file that was written.
    pub output: PathBuf,
    /// The hash of its bytes.
    pub version: String,
    /// The labels, in the head's order.
    pub labels: Vec<String>,
    pub rows: usize,
    /// Rows that were left out because they are not valid documents or have no label.
    pub skipped: usize,
    /// Why the first of them was left out.
    pub first_skipped: Option<String>,
    /// How well the head classifies the rows that it was not trained on.
    #[serde(flatten)]
    pub quality: TrainingReport,
}

/// Trains the head that `options` describe and writes it.
pub async fn train_head(definition: &Definition, engine: &Engine, options: &TrainOptions) -> anyhow::Result<TrainReport> {
    let (task, spec) = classify_task(definition, &options.task)?;
    let model = engine.model(&spec.model).with_context(|| format!("model `{}` is not configured", spec.model))?;
    if model.kind != ModelKind::Encoder {
        bail!("model `{}` is a classifier with labels of its own, but a head needs an encoder", spec.model);
    }
    let mut rows = read(definition, spec.multi, options)?;
    ensure!(
        !rows.good.is_empty(),
        "`{}` has no row to train from; the first row is left out because {}",
        options.examples.display(),
        rows.first_skipped.as_deref().unwrap_or("there is none")
    );
    let good = std::mem::take(&mut rows.good);
    let mut examples = Vec::with_capacity(good.len());
    for part in good.chunks(ROWS_AT_ONCE) {
        let request = |(document, _): &(Document, Vec<String>)| Request {
            model: model.name.clone(),
            work: Work::Encode { texts: vec![document.text.clone()], chunking: Chunking::Truncate, kind: TextKind::Plain },
        };
        let answers = engine.run(part.iter().map(request).collect()).await?;
        ensure!(answers.len() == part.len(), "the model host got {} requests, but gave {} answers", part.len(), answers.len());
        for ((document, labels), answer) in part.iter().zip(answers) {
            match answer {
                Ok(answer) => {
                    let vector = single_vector(answer.prediction).with_context(|| format!("row `{}`", document.id))?;
                    examples.push(TrainingExample { id: document.id.to_string(), vector, labels: labels.clone() });
                }
                Err(failure) => rows.skip(format!("row `{}` cannot be encoded: {failure}", document.id)),
            }
        }
        tracing::info!(rows = examples.len(), of = good.len(), "encoded examples");
    }
    let labels = spec.labels.as_ref().map(|labels| labels.0.iter().map(|(label, _)| label.clone()).collect());
    let purpose = TrainingSpec {
        labels: labels.unwrap_or_default(),
        multi: spec.multi,
        model: model.name.to_string(),
        revision: model.revision.clone(),
    };
    let (head, quality) = tokio::task::spawn_blocking(move || train(&examples, &purpose)).await??;
    let output = options.output.clone().unwrap_or_else(|| default_output(definition, task, spec));
    let version = head.save(&output)?;
    Ok(TrainReport {
        output,
        version,
        labels: head.labels,
        rows: rows.read,
        skipped: rows.skipped,
        first_skipped: rows.first_skipped,
        quality,
    })
}

fn classify_task<'a>(definition: &'a Definition, name: &str) -> anyhow::Result<(&'a TaskDefinition, &'a ClassifySpec)> {
    let Some(task) = definition.tasks.iter().find(|task| *task.name == *name) else {
        let near = suggestion(name, definition.tasks.iter().map(|task| &*task.name));
        bail!("pipeline `{}` has no task `{name}`{near}", definition.name);
    };
    match &task.spec {
        TaskSpec::Classify(spec) => Ok((task, spec)),
        other => bail!("task `{name}` is of kind `{}`: only `classify` has a head to train", other.kind()),
    }
}

fn default_output(definition: &Definition, task: &TaskDefinition, spec: &ClassifySpec) -> PathBuf {
    let named = spec.head.clone().unwrap_or_else(|| Path::new("heads").join(format!("{}.safetensors", task.name)));
    definition.base_dir().join(named)
}

fn single_vector(prediction: Prediction) -> anyhow::Result<Vec<f32>> {
    let Prediction::Vectors(texts) = prediction else { bail!("the model answered with class scores, not with vectors") };
    let [text] = texts.as_slice() else { bail!("the model did not answer with the vector of one text") };
    let [chunk] = text.chunks.as_slice() else { bail!("the model split a text that must stay whole") };
    Ok(chunk.vector.to_vec())
}

#[derive(Default)]
struct Rows {
    good: Vec<(Document, Vec<String>)>,
    read: usize,
    skipped: usize,
    first_skipped: Option<String>,
}

impl Rows {
    fn skip(&mut self, reason: String) {
        self.skipped += 1;
        self.first_skipped.get_or_insert(reason);
    }
}

fn read(definition: &Definition, multi: bool, options: &TrainOptions) -> anyhow::Result<Rows> {
    if definition.source.document.format == Format::Text {
        bail!(
            "pipeline `{}` reads plain text, which has no field for a label: train from a pipeline of format `json`",
            definition.name
        );
    }
    let decoder = Decoder::new(&definition.source.document.in_json())?;
    let place = options.examples.display();
    let file = File::open(&options.examples).with_context(|| format!("`{place}` cannot be read"))?;
    let mut rows = Rows::default();
    for (index, line) in BufReader::new(file).split(b'\n').enumerate() {
        let line = line.with_context(|| format!("`{place}` cannot be read"))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        rows.read += 1;
        match labelled(&decoder, line, index, multi, &options.label_field) {
            Ok(row) => rows.good.push(row),
            Err(reason) => rows.skip(format!("line {}: {reason}", index + 1)),
        }
    }
    Ok(rows)
}

fn labelled(decoder: &Decoder, line: Vec<u8>, index: usize, multi: bool, field: &str) -> Result<(Document, Vec<String>), String> {
    let partition = Partition { topic: "examples".into(), number: 0 };
    let record = Record {
        place: RecordLocation { partition, offset: i64::try_from(index).unwrap_or(i64::MAX) },
        timestamp_ms: None,
        key: None,
        payload: Some(line.into()),
        headers: Vec::new(),
    };
    let document = match decoder.decode(&record, &Schemas::none()) {
        Ok(DecodedRecord::Document(document)) => document,
        Ok(DecodedRecord::Tombstone { .. }) => return Err("the row is a delete".into()),
        Err(poison) => return Err(poison.to_string()),
    };
    let labels = match look_up(&document.fields, field) {
        Some(Value::String(label)) => vec![label.clone()],
        Some(Value::Array(items)) if multi => {
            let labels: Option<Vec<String>> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            labels.ok_or_else(|| format!("field `{field}` holds something that is not a string"))?
        }
        Some(_) if multi => return Err(format!("field `{field}` is neither a label nor a list of labels")),
        Some(_) => return Err(format!("field `{field}` is not a string, so it is not a label")),
        None => return Err(format!("field `{field}` is absent: name the field that holds the label")),
    };
    Ok((document, labels))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::EngineConfig;

    fn definition(task: &str) -> Definition {
        let text = format!("version: 1\nname: test\nsource: {{ topic: docs }}\ntasks: {{ t: {task} }}");
        Definition::parse(Path::new("pipelines/p.yaml"), &text).unwrap()
    }

    fn options(examples: &Path) -> TrainOptions {
        TrainOptions { task: "t".into(), examples: examples.into(), label_field: "label".into(), output: None }
    }

    #[test]
    fn rows_that_cannot_teach_are_counted_with_the_first_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        let rows = [
            r#"{"id": 1, "text": "x", "label": "a"}"#,
            "",
            r#"{"id": 2, "text": "y"}"#,
            "not json",
            r#"{"id": 3, "text": "z", "label": 7}"#,
        ];
        std::fs::write(&path, rows.join("\n")).unwrap();
        let read = read(&definition("{ classify: { model: m } }"), false, &options(&path)).unwrap();
        assert_eq!((read.read, read.good.len(), read.skipped), (4, 1, 3));
        assert_eq!(read.first_skipped.unwrap(), "line 3: field `label` is absent: name the field that holds the label");
        assert_eq!(read.good[0].1, ["a"]);
    }

    #[test]
    fn several_labels_are_read_from_a_list() {
        let line = br#"{"id": 1, "text": "x", "about": {"topics": ["a", "b"]}}"#.to_vec();
        let decoder = Decoder::new(&Default::default()).unwrap();
        assert_eq!(labelled(&decoder, line.clone(), 0, true, "about.topics").unwrap().1, ["a", "b"]);
        assert!(labelled(&decoder, line, 0, false, "about.topics").unwrap_err().contains("is not a string"));
    }

    #[test]
    fn a_head_is_written_where_the_task_looks_for_it() {
        let at = |task: &str| {
            let definition = definition(task);
            let (task, spec) = classify_task(&definition, "t").unwrap();
            default_output(&definition, task, spec)
        };
        assert_eq!(at("{ classify: { model: m } }"), Path::new("pipelines/heads/t.safetensors"));
        assert_eq!(at("{ classify: { model: m, head: mine/h.safetensors } }"), Path::new("pipelines/mine/h.safetensors"));
    }

    #[tokio::test]
    async fn what_cannot_be_trained_is_said_before_any_row_is_read() {
        let engine = Engine::start(&EngineConfig::default(), &BTreeMap::new()).unwrap();
        let says = async |task: &str, name: &str| {
            let options = TrainOptions { task: name.into(), ..options(Path::new("/nowhere")) };
            train_head(&definition(task), &engine, &options).await.unwrap_err().to_string()
        };
        assert!(says("{ render: { template: x } }", "t").await.contains("only `classify` has a head"));
        assert!(says("{ render: { template: x } }", "T").await.contains("no task `T`; did you mean `t`?"));
        assert!(says("{ classify: { model: m } }", "t").await.contains("model `m` is not configured"));
    }
}
