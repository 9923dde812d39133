//! What tasks ask for beyond the documents: the model host round by round, and passages of stored documents.

use std::collections::BTreeSet;

use super::*;

/// Rounds of requests that one output may take: a document of a thousand contexts is summarized in fewer.
const MOST_ROUNDS: usize = 12;

impl Graph {
    /// Asks the model host for what is `asked`, round by round, as long as tasks have further requests.
    pub(super) async fn answer(
        &self,
        mut asked: Vec<ModelCalls>,
        documents: &[Document],
        sheets: &mut [DocumentState],
    ) -> Result<(), Transient> {
        for _ in 0..MOST_ROUNDS {
            if asked.is_empty() {
                return Ok(());
            }
            for node in asked.iter().map(|asking| asking.at.1).collect::<BTreeSet<_>>() {
                self.nodes[node].task.initialize(&self.engine).await?;
            }
            let counts: Vec<usize> = asked.iter().map(|asking| asking.requests.len()).collect();
            let requests: Vec<Request> = asked.iter_mut().flat_map(|asking| std::mem::take(&mut asking.requests)).collect();
            let expected = requests.len();
            let mut answers = self.engine.run(requests).await?;
            if answers.len() != expected {
                return Err(broken(&format!("the model host was asked {expected} times, but gave {} answers", answers.len())));
            }
            let mut again = Vec::new();
            for (mut asking, count) in asked.into_iter().zip(counts) {
                let rest = answers.split_off(count);
                let answers = std::mem::replace(&mut answers, rest);
                let document = &documents[asking.at.0];
                let upstream = &sheets[asking.at.0].upstream;
                match self.interpret(&mut asking, document, upstream, answers) {
                    Ok(TaskStep::Ready(output)) => {
                        let product = ComputedOutput { output, fingerprint: asking.fingerprint, cost: asking.cost };
                        self.finish(asking.at, Outcome::Computed(product), sheets);
                    }
                    Ok(TaskStep::Ask(requests)) => again.push(ModelCalls { requests, ..asking }),
                    Ok(TaskStep::Find(_)) => return Err(broken("a task looks for passages after it has asked a model")),
                    Err(Failure::Poison(poison)) => self.finish(asking.at, Outcome::Dead(poison), sheets),
                    Err(Failure::Transient(transient)) => return Err(transient),
                }
            }
            asked = again;
        }
        for asking in asked {
            let reason =
                format!("the task asked the model {MOST_ROUNDS} times in a row and came to no output; shorten the document");
            self.finish(asking.at, Outcome::Dead(Poison { class: FailureClass::Model, reason }), sheets);
        }
        Ok(())
    }

    fn interpret(
        &self,
        asking: &mut ModelCalls,
        document: &Document,
        upstream: &TemplateContext,
        answers: Vec<Result<Answer, Failure>>,
    ) -> Result<TaskStep, Failure> {
        let mut predictions = Vec::with_capacity(answers.len());
        let mut failure = None;
        for answer in answers {
            match answer {
                Ok(Answer { prediction, tokens, generated, device_micros }) => {
                    asking.cost += Cost { tokens, generated, device_micros };
                    predictions.push(prediction);
                }
                // An outage counts more than a fault of the document: everything is tried again then.
                Err(Failure::Transient(transient)) => return Err(transient.into()),
                Err(poison) => {
                    failure.get_or_insert(poison);
                }
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => self.nodes[asking.at.1].task.interpret(document, upstream, predictions),
        }
    }

    /// Looks up the passages that units wait for. Those that nothing can be found for are finished here.
    pub(super) async fn find(
        &self,
        waiting: Vec<PreparedTask>,
        sheets: &mut [DocumentState],
    ) -> Result<Vec<PreparedTask>, Transient> {
        let wanted = |waiting: &PreparedTask| match &waiting.prepared {
            TaskStep::Find(seek) => Some(seek.clone()),
            TaskStep::Ask(_) | TaskStep::Ready(_) => None,
        };
        let seeks: Vec<PassageQuery> = waiting.iter().filter_map(wanted).collect();
        if seeks.is_empty() {
            return Ok(waiting);
        }
        let found = self.library.find(&seeks).await?;
        if found.len() != seeks.len() {
            return Err(broken(&format!("{} passages were looked for, but {} answers came back", seeks.len(), found.len())));
        }
        let mut found = found.into_iter();
        let mut ready = Vec::with_capacity(waiting.len());
        for unit in waiting {
            match (&unit.prepared, &mut found) {
                (TaskStep::Find(_), found) => match found.next() {
                    Some(Ok(FoundPassages { passages, cost })) => {
                        ready.push(PreparedTask { prepared: TaskStep::Ready(Output::Passages(passages)), cost, ..unit });
                    }
                    Some(Err(poison)) => self.finish((unit.document, unit.node), Outcome::Dead(poison), sheets),
                    None => return Err(broken("passages went missing")),
                },
                _ => ready.push(unit),
            }
        }
        Ok(ready)
    }
}
