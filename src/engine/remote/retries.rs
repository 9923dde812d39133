//! A question until there is an answer, or until it is clear whose fault it is that there is none.
//!
//! | what the server does | what follows |
//! |---|---|
//! | refuses a parameter by name | asked without it, see `dialect.rs` |
//! | refuses the content by its code, or the length of the prompt | a dead letter |
//! | refuses for another reason | a dead letter if others are answered, else a pause |
//! | is not there, or busy | asked again, then a pause |
//! | answers with what is no answer, time and again | a dead letter if others are answered, else a pause |
//! | fails or is silent, time and again | the same, but only after [`FAILED_ROUNDS_MAX`] pauses: a server may fail for a while |
//!
//! Others are answered if another question in the same form was since this one began, or else if the probe is: a question in that form that
//! says nothing. What is refused of it is no document's fault. A refusal that may be of the key is always followed by the probe. Where this
//! question is answered, if with what is no answer, the server is in order, and another's answer counts for longer.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::Instant;

use super::RemoteModel;
use super::call::{CallOutcome, FaultSource, RetryableFailure};
use super::chat_request::ChatRequest;
use super::refusal::Refusal;
use super::reply::Reply;
use crate::request::{Message, Role};
use tidemill_base::failure::{Component, Failure, FailureClass};
use tidemill_base::metrics::METRICS;

/// What the probe says.
const PROBE: &str = "Say yes.";

/// How long a refusal of the probe stands for all questions of its form, before the server is asked again.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// How long an answer shows that a server, which has answered since, answers others.
const ANSWERS_FOR: Duration = Duration::from_secs(600);

/// Pauses after which a document that a server fails at, while it answers the probe, is at fault.
const FAILED_ROUNDS_MAX: u32 = 3;

/// Questions that are remembered as failed at; more than ever wait at a time.
const FAILED_QUESTIONS_MAX: usize = 10_000;

/// What is known of questions without an answer.
#[derive(Debug, Default)]
pub(super) struct FaultTracker {
    /// Held while a probe is under way: one tells for all who wait.
    turn: tokio::sync::Mutex<()>,
    /// What came of the last probe of each form.
    probes: Mutex<HashMap<u64, ProbeResult>>,
    /// When a question of each form was answered last.
    answered: Mutex<HashMap<u64, Instant>>,
    /// How often a question was given up.
    failed: Mutex<HashMap<u64, u32>>,
}

#[derive(Debug, Clone)]
struct ProbeResult {
    at: Instant,
    /// Why the server cannot be asked so; none where it answered.
    fault: Option<String>,
    /// Whether the fault stays until somebody mends it.
    stays: bool,
}

impl FaultTracker {
    fn probes(&self) -> MutexGuard<'_, HashMap<u64, ProbeResult>> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<u64, u32>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why questions of that form are not worth asking now.
    fn known_fault(&self, form: u64) -> Option<String> {
        self.probes().get(&form).filter(|probed| probed.stays && probed.at.elapsed() < REFUSED_FOR)?.fault.clone()
    }

    /// Counts that the question was given up.
    fn count(&self, question: u64) -> u32 {
        let mut failed = self.failed();
        if failed.len() >= FAILED_QUESTIONS_MAX {
            failed.clear();
        }
        let times = failed.entry(question).or_default();
        *times += 1;
        *times
    }
}

impl RemoteModel {
    /// One usable reply: sends the question until there is one, or until it is clear whose fault it is that there is none.
    pub(super) async fn reply(&self, question: &ChatRequest<'_>) -> Result<Reply, Failure> {
        let (begun, form) = (Instant::now(), self.form(question));
        if let Some(fault) = self.faults.known_fault(form) {
            return Err(self.transient(&fault));
        }
        let mut spent = Duration::ZERO;
        let mut attempt = 0;
        let mut is_relearnt = false;
        loop {
            let known = self.dialect();
            let (outcome, took) = self.attempt_dialects(question, self.patience.total.saturating_sub(spent)).await;
            spent += took;
            let RetryableFailure { reason, requested_wait, source, .. } = match outcome {
                CallOutcome::Reply(reply) => {
                    self.faults.answered().insert(form, Instant::now());
                    self.faults.failed().remove(&self.digest(question));
                    return Ok(reply);
                }
                CallOutcome::Poison(poison) => {
                    self.faults.answered().insert(form, Instant::now());
                    return Err(poison.into());
                }
                CallOutcome::SettingsFault(reason) => return Err(self.transient(&reason)),
                CallOutcome::Refused { status, refusal } => {
                    let failure = self.refused(question, begun, status, &refusal).await;
                    // The probe may have taught what the document's refusal did not.
                    if !is_relearnt && matches!(failure, Failure::Poison(_)) && self.dialect() != known {
                        is_relearnt = true;
                        continue;
                    }
                    return Err(failure);
                }
                CallOutcome::Retry(again) => again,
            };
            attempt += 1;
            let Some(wait) = self.patience.wait(attempt, requested_wait) else {
                // The stream comes back sooner than that, and then waits here instead of knocking at once.
                self.gate.close(self.patience.longest_wait);
                let asked = requested_wait.unwrap_or_default().as_secs();
                return Err(self.transient(&format!("{reason}, and asks for {asked} s without calls")));
            };
            if requested_wait.is_some() {
                self.gate.close(wait);
            }
            if attempt >= self.patience.attempts || spent + wait >= self.patience.total {
                let times = if attempt == 1 { "1 attempt".into() } else { format!("{attempt} attempts") };
                return Err(self.attempts_exhausted(question, begun, &format!("{reason} ({times})"), source).await);
            }
            METRICS.retries.with_label_values(&[Component::Model.as_str()]).inc();
            tracing::debug!(model = &*self.info.name, attempt, reason, "asking the server again");
            tokio::time::sleep(wait).await;
            spent += wait;
        }
    }

    /// Asks in the dialect that is known, and in leaner ones as long as refusals name what they are about.
    async fn attempt_dialects(&self, question: &ChatRequest<'_>, left: Duration) -> (CallOutcome, Duration) {
        let known = self.dialect();
        let mut dialect = known;
        let (mut outcome, mut spent) = self.attempt(question, dialect, left).await;
        'refused: while let Some(refusal) =
            outcome.refusal().filter(|refusal| !refusal.is_of_content() && !refusal.is_of_length())
        {
            let body = question.body(&self.server_model, dialect);
            for leaner in dialect.leaner(refusal, &body) {
                let (next, took) = self.attempt(question, leaner, left.saturating_sub(spent)).await;
                spent += took;
                if !next.refusal().is_some_and(|again| again.is_like(refusal)) {
                    (dialect, outcome) = (leaner, next);
                    continue 'refused;
                }
            }
            break;
        }
        // A document may be refused in words that name a parameter. Only an answer shows that it was one.
        if dialect != known && matches!(outcome, CallOutcome::Reply(_) | CallOutcome::Poison(_)) {
            self.learn(dialect);
        }
        (outcome, spent)
    }

    /// Whose fault a refusal is that names no parameter.
    async fn refused(&self, question: &ChatRequest<'_>, begun: Instant, status: StatusCode, refusal: &Refusal) -> Failure {
        let poison = refusal.poison(status);
        if poison.class == FailureClass::TooLong || refusal.is_of_content() {
            return poison.into();
        }
        if status != StatusCode::FORBIDDEN && self.answers_others(question, |at| at >= begun) {
            return poison.into();
        }
        match self.probe(question).await {
            None => poison.into(),
            Some(fault) => self.transient(&fault),
        }
    }

    /// Whether another question of the same form was answered, and not too long ago.
    fn answers_others(&self, question: &ChatRequest<'_>, is_recent: impl Fn(Instant) -> bool) -> bool {
        self.faults.answered().get(&self.form(question)).is_some_and(|at| is_recent(*at))
    }

    /// Whose fault it is that the question has no answer after all attempts.
    async fn attempts_exhausted(&self, question: &ChatRequest<'_>, begun: Instant, reason: &str, source: FaultSource) -> Failure {
        let rounds = match source {
            FaultSource::Server => return self.transient(reason),
            FaultSource::Either => FAILED_ROUNDS_MAX,
            FaultSource::Document => 1,
        };
        let is_recent = |at: Instant| at >= begun || source == FaultSource::Document && at.elapsed() < ANSWERS_FOR;
        let answers_others = self.answers_others(question, is_recent) || self.probe(question).await.is_none();
        if !answers_others || self.faults.count(self.digest(question)) < rounds {
            return self.transient(reason);
        }
        self.faults.failed().remove(&self.digest(question));
        Failure::poison(FailureClass::Model, format!("the server answers others, and when asked about this document it {reason}"))
    }

    /// Asks the probe in the form of `question`: why the server cannot be asked so, or none where it answers.
    async fn probe(&self, question: &ChatRequest<'_>) -> Option<String> {
        let (since, form) = (Instant::now(), self.form(question));
        let _turn = self.faults.turn.lock().await;
        if let Some(probed) = self.faults.probes().get(&form).filter(|probed| probed.at >= since) {
            return probed.fault.clone();
        }
        let messages = [Message { role: Role::User, content: PROBE.into() }];
        let (outcome, _) = self.attempt_dialects(&ChatRequest { messages: &messages, ..question.clone() }, self.timeout).await;
        let (fault, stays) = match outcome {
            CallOutcome::Reply(_) | CallOutcome::Poison(_) => (None, false),
            CallOutcome::SettingsFault(reason) => (Some(reason), true),
            CallOutcome::Refused { status: StatusCode::FORBIDDEN, refusal } => {
                (Some(self.settings_at_fault(StatusCode::FORBIDDEN, &refusal)), true)
            }
            CallOutcome::Refused { status, refusal } => {
                let (name, said) = (&self.info.name, refusal.quoted());
                let reason = format!(
                    "refuses every request of this kind with {status}, whatever its text{said}; correct the task's or the prompt's \
                     parameters, or `models.{name}`"
                );
                (Some(reason), true)
            }
            CallOutcome::Retry(again) => (Some(again.reason), false),
        };
        self.faults.probes().insert(form, ProbeResult { at: Instant::now(), fault: fault.clone(), stays });
        fault
    }

    /// What requests have in common that differ only in what they say.
    fn form(&self, question: &ChatRequest<'_>) -> u64 {
        let ChatRequest { messages: _, max_tokens, sampling, stop, schema, alternatives } = question;
        let mut hasher = DefaultHasher::new();
        (max_tokens, sampling.top_k, stop, alternatives).hash(&mut hasher);
        (sampling.temperature.to_bits(), sampling.top_p.to_bits(), schema.map(ToString::to_string)).hash(&mut hasher);
        hasher.finish()
    }

    fn digest(&self, question: &ChatRequest<'_>) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.form(question).hash(&mut hasher);
        for message in question.messages {
            (message.role.as_str(), &message.content).hash(&mut hasher);
        }
        hasher.finish()
    }
}
