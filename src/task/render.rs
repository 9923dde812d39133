//! `render`: renders a text template with the document and the outputs of other tasks. It needs no model.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Task, TaskStep, TemplateContext};
use crate::document::Document;
use crate::engine::Engine;
use crate::failure::{Failure, FailureClass};
use crate::outcome::Output;
use crate::template::{PrintMode, Template, TemplateError};

/// The longest text that a template can render for one document, in bytes.
const MAX_OUTPUT: usize = 1 << 20;

/// Parameters of `render`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenderSpec {
    /// The template. It can read `document` and other tasks by name.
    pub template: String,
}

struct Render {
    signature: Vec<u8>,
    template: Template,
}

impl RenderSpec {
    pub(super) fn model(&self) -> Option<&str> {
        None
    }

    pub(super) fn problems(&self, _base_dir: &Path) -> Vec<String> {
        self.compile().err().map(|error| format!("has a bad template: {error}")).into_iter().collect()
    }

    pub(super) fn reads(&self, _base_dir: &Path) -> Vec<String> {
        self.compile().map(|template| template.variables().to_vec()).unwrap_or_default()
    }

    pub(super) async fn build(&self, name: &str, _engine: &Engine, _base_dir: &Path) -> anyhow::Result<Arc<dyn Task>> {
        let template = self.compile().map_err(|error| anyhow::anyhow!("task `{name}` has a bad template: {error}"))?;
        Ok(Arc::new(Render { signature: serde_json::to_vec(&("render", self))?, template }))
    }

    fn compile(&self) -> Result<Template, TemplateError> {
        Template::new(&self.template, PrintMode::Scalars, MAX_OUTPUT)
    }
}

impl Task for Render {
    fn kind(&self) -> &'static str {
        "render"
    }

    fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn prepare(&self, _document: &Document, upstream: &TemplateContext) -> Result<TaskStep, Failure> {
        let text = self.template.render(&upstream.context())?;
        if let Some(at) = text.find('\0') {
            return Err(Failure::poison(FailureClass::NulCharacter, format!("the rendered text contains U+0000 at byte {at}")));
        }
        Ok(TaskStep::Ready(Output::Text(text)))
    }
}
