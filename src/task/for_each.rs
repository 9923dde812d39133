//! `for_each`: one request per item of a list, and one output for all items.

use minijinja::Value;

use super::{TaskStep, TemplateContext, only};
use crate::engine::{Prediction, Request};
use crate::failure::{Failure, FailureClass, Poison};
use crate::outcome::Output;
use crate::template::ListExpression;

/// Most items of one document. Each item is a separate request, so a wrong list could block the stream without a limit.
const MOST_ITEMS: usize = 100;

/// The names of an item and of its index (from 0) in templates.
pub(super) const ITEM_NAMES: [&str; 2] = ["item", "index"];

/// What a task runs for: the document, or each item of a list.
#[derive(Debug)]
pub(super) struct ForEach(Option<ListExpression>);

/// Template variables of one request in addition to the document and earlier tasks.
pub(super) type ItemScope = Vec<(&'static str, Value)>;

impl ForEach {
    pub(super) fn new(for_each: Option<&str>) -> Result<Self, String> {
        let selection =
            for_each.map(ListExpression::new).transpose().map_err(|error| format!("has a bad `for_each`: {error}"))?;
        Ok(Self(selection))
    }

    /// The names that the list expression reads.
    pub(super) fn reads(&self) -> &[String] {
        self.0.as_ref().map_or(&[], ListExpression::variables)
    }

    /// The requests that `ask` builds, one per item.
    pub(super) fn prepare(
        &self,
        upstream: &TemplateContext,
        mut ask: impl FnMut(ItemScope) -> Result<Request, Poison>,
    ) -> Result<TaskStep, Failure> {
        let Some(selection) = &self.0 else { return Ok(TaskStep::Ask(vec![ask(ItemScope::new())?])) };
        let items = selection.items(&upstream.context(), MOST_ITEMS)?;
        if items.is_empty() {
            return Ok(TaskStep::Ready(Output::Items(Vec::new())));
        }
        let [item_name, index_name] = ITEM_NAMES;
        let scope = |(index, item)| vec![(item_name, item), (index_name, Value::from(index))];
        let requests = items.into_iter().enumerate().map(|pair| ask(scope(pair)));
        Ok(TaskStep::Ask(requests.collect::<Result<_, _>>()?))
    }

    /// The output, in which `one` converts each prediction.
    pub(super) fn interpret(
        &self,
        predictions: Vec<Prediction>,
        one: impl Fn(Prediction) -> Result<Output, Failure>,
    ) -> Result<TaskStep, Failure> {
        if self.0.is_none() {
            return Ok(TaskStep::Ready(one(only(predictions)?)?));
        }
        let mut items = Vec::with_capacity(predictions.len());
        for (index, prediction) in predictions.into_iter().enumerate() {
            items.push(one(prediction).map_err(|failure| about(index, failure))?);
        }
        Ok(TaskStep::Ready(Output::Items(items)))
    }
}

fn about(index: usize, failure: Failure) -> Failure {
    match failure {
        Failure::Poison(Poison { class, reason }) => Failure::poison(class, format!("item {index}: {reason}")),
        transient @ Failure::Transient(_) => transient,
    }
}

/// Unwraps a completion.
pub(super) fn completion(prediction: Prediction) -> Result<crate::engine::Completion, Failure> {
    match prediction {
        Prediction::Completion(completion) => Ok(completion),
        _ => Err(Failure::poison(FailureClass::Model, "the model did not answer with a completion")),
    }
}
