//! Calls the model host for tasks, round by round, and searches passages of stored documents for them.

use std::collections::BTreeSet;

use super::*;

/// Rounds of requests that one output may take. Summarizing a document of a thousand context lengths takes fewer.
const MOST_ROUNDS: usize = 12;

impl Graph {
    /// Sends the requests of `calls` to the model host, round by round, until the tasks have no further requests.
    pub(super) async fn answer(
        &self,
        mut calls: Vec<ModelCalls>,
        documents: &[Document],
        states: &mut [DocumentState],
    ) -> Result<(), Transient> {
        for _ in 0..MOST_ROUNDS {
            if calls.is_empty() {
                return Ok(());
            }
            for node in calls.iter().map(|call| call.at.node).collect::<BTreeSet<_>>() {
                self.nodes[node].task.initialize(&self.engine).await?;
            }
            let counts: Vec<usize> = calls.iter().map(|call| call.requests.len()).collect();
            let requests: Vec<Request> = calls.iter_mut().flat_map(|call| std::mem::take(&mut call.requests)).collect();
            let expected = requests.len();
            let mut answers = self.engine.run(requests).await?;
            if answers.len() != expected {
                return Err(broken(&format!("the model host got {expected} requests, but gave {} answers", answers.len())));
            }
            let mut next_calls = Vec::new();
            for (mut call, count) in calls.into_iter().zip(counts) {
                let rest = answers.split_off(count);
                let answers = std::mem::replace(&mut answers, rest);
                let document = &documents[call.at.document];
                let context = &states[call.at.document].context;
                match self.interpret(&mut call, document, context, answers) {
                    Ok(TaskStep::Ready(output)) => {
                        let computed = ComputedOutput { output, fingerprint: call.fingerprint, cost: call.cost };
                        self.finish(call.at, Outcome::Computed(computed), states);
                    }
                    Ok(TaskStep::Ask(requests)) => next_calls.push(ModelCalls { requests, ..call }),
                    Ok(TaskStep::Find(_)) => return Err(broken("a task searches passages after it has called a model")),
                    Err(Failure::Poison(poison)) => self.finish(call.at, Outcome::Dead(poison), states),
                    Err(Failure::Transient(transient)) => return Err(transient),
                }
            }
            calls = next_calls;
        }
        for call in calls {
            let reason =
                format!("the task called the model {MOST_ROUNDS} times in a row without an output; shorten the document");
            self.finish(call.at, Outcome::Dead(Poison { class: FailureClass::Model, reason }), states);
        }
        Ok(())
    }

    fn interpret(
        &self,
        call: &mut ModelCalls,
        document: &Document,
        context: &TemplateContext,
        answers: Vec<Result<Answer, Failure>>,
    ) -> Result<TaskStep, Failure> {
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(match answer {
                Ok(Answer { prediction, tokens, generated, device_micros }) => {
                    call.cost += Cost { tokens, generated, device_micros };
                    Ok(prediction)
                }
                // An unavailable component takes precedence over a failed request, because everything is then retried.
                Err(Failure::Transient(transient)) => return Err(transient.into()),
                Err(Failure::Poison(poison)) => Err(poison),
            });
        }
        let task = &self.nodes[call.at.node].task;
        if call.earlier.is_empty() {
            let predictions: Vec<Prediction> = results.into_iter().collect::<Result<_, Poison>>()?;
            call.earlier.push(predictions.clone());
            return task.interpret(document, context, predictions);
        }
        let round = results.iter().filter_map(|result| result.as_ref().ok()).cloned().collect();
        let step = task.interpret_again(document, context, &call.earlier, results);
        call.earlier.push(round);
        step
    }

    /// Searches the passages that `tasks` wait for. Tasks whose query fails become dead letters and are not returned.
    pub(super) async fn find_passages(
        &self,
        tasks: Vec<PreparedTask>,
        states: &mut [DocumentState],
    ) -> Result<Vec<PreparedTask>, Transient> {
        let query = |task: &PreparedTask| match &task.step {
            TaskStep::Find(query) => Some(query.clone()),
            TaskStep::Ask(_) | TaskStep::Ready(_) => None,
        };
        let queries: Vec<PassageQuery> = tasks.iter().filter_map(query).collect();
        if queries.is_empty() {
            return Ok(tasks);
        }
        let found = self.passage_search.find(&queries).await?;
        if found.len() != queries.len() {
            return Err(broken(&format!("{} passage queries were sent, but {} answers came back", queries.len(), found.len())));
        }
        let mut found = found.into_iter();
        let mut ready = Vec::with_capacity(tasks.len());
        for task in tasks {
            match (&task.step, &mut found) {
                (TaskStep::Find(_), found) => match found.next() {
                    Some(Ok(FoundPassages { passages, cost })) => {
                        ready.push(PreparedTask { step: TaskStep::Ready(Output::Passages(passages)), cost, ..task });
                    }
                    Some(Err(poison)) => self.finish(task.at, Outcome::Dead(poison), states),
                    None => return Err(broken("the answer to a passage query is missing")),
                },
                _ => ready.push(task),
            }
        }
        Ok(ready)
    }
}
