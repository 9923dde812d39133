//! Repeats a request until there is an answer, or until it is clear why there is none.
//!
//! | what the server does | what follows |
//! |---|---|
//! | refuses a parameter by name | a request without it, see `dialect.rs` |
//! | refuses the content by its code, or the length of the prompt | a dead letter |
//! | refuses for another reason | a dead letter if it answers other requests, otherwise a pause |
//! | is unreachable or busy | retries, then a pause |
//! | repeatedly sends something that is not an answer | a dead letter if it answers other requests, otherwise a pause |
//! | repeatedly fails or does not respond | the same, but only after [`FAILED_ROUNDS_MAX`] pauses, because a server may fail for a while |
//!
//! The server answers other requests if it has answered another request of the same form since this one began, or if it answers the
//! probe: a request of the same form with a harmless text. If the probe is refused, the document is not the cause. A refusal that
//! may concern the key is always followed by the probe. If the server responds to this request, though not with an answer, it
//! works, and an older answer to another request counts too.

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

/// The text of the probe. The server's answer to it does not matter.
const PROBE: &str = "Say yes.";

/// For how long a refused probe stops all requests of its form, before the server is asked again.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// How recent another answer must be if the server responds to this request.
const ANSWERS_FOR: Duration = Duration::from_secs(600);

/// The number of pauses after which a document is at fault, if the server fails at it and answers the probe.
const FAILED_ROUNDS_MAX: u32 = 3;

/// The maximum number of failed requests to remember; more than can ever wait at once.
const FAILED_QUESTIONS_MAX: usize = 10_000;

/// What is known about requests without an answer.
#[derive(Debug, Default)]
pub(super) struct FaultTracker {
    /// Held during a probe, so that one probe serves all that wait for it.
    turn: tokio::sync::Mutex<()>,
    /// The result of the last probe of each form.
    probes: Mutex<HashMap<u64, ProbeResult>>,
    /// When a request of each form was last answered.
    answered: Mutex<HashMap<u64, Instant>>,
    /// How often all attempts of a request have failed.
    failed: Mutex<HashMap<u64, u32>>,
}

#[derive(Debug, Clone)]
struct ProbeResult {
    at: Instant,
    /// Why requests of this form cannot be answered; none if the probe was answered.
    fault: Option<String>,
    /// Whether the fault stays until an operator fixes it.
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

    /// Why requests of this form cannot be answered at present.
    fn known_fault(&self, form: u64) -> Option<String> {
        self.probes().get(&form).filter(|probed| probed.stays && probed.at.elapsed() < REFUSED_FOR)?.fault.clone()
    }

    /// Counts that all attempts of the request have failed.
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
    /// Sends the request until there is a usable reply, or until it is clear why there is none.
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
                    // The probe may have led to another dialect, in which the request may be accepted.
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
                // The stream retries sooner than that. Its next request then waits at this gate.
                self.gate.close(self.patience.longest_wait);
                let asked = requested_wait.unwrap_or_default().as_secs();
                return Err(self.transient(&format!("{reason}, and requests {asked} s without calls")));
            };
            if requested_wait.is_some() {
                self.gate.close(wait);
            }
            if attempt >= self.patience.attempts || spent + wait >= self.patience.total {
                let times = if attempt == 1 { "1 attempt".into() } else { format!("{attempt} attempts") };
                return Err(self.attempts_exhausted(question, begun, &format!("{reason} ({times})"), source).await);
            }
            METRICS.retries.with_label_values(&[Component::Model.as_str()]).inc();
            tracing::debug!(model = &*self.info.name, attempt, reason, "retrying the request to the server");
            tokio::time::sleep(wait).await;
            spent += wait;
        }
    }

    /// Sends the request in the current dialect, and in reduced ones as long as refusals name a parameter.
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
        // A refusal of a document may happen to name a parameter. Only an answer proves that the parameter was the cause.
        if dialect != known && matches!(outcome, CallOutcome::Reply(_) | CallOutcome::Poison(_)) {
            self.learn(dialect);
        }
        (outcome, spent)
    }

    /// The failure for a refusal that names no parameter.
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

    /// Whether another request of the same form was answered recently enough.
    fn answers_others(&self, question: &ChatRequest<'_>, is_recent: impl Fn(Instant) -> bool) -> bool {
        self.faults.answered().get(&self.form(question)).is_some_and(|at| is_recent(*at))
    }

    /// The failure after all attempts: of the server, or of the document.
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
        Failure::poison(FailureClass::Model, format!("the server answers other requests, but for this document it {reason}"))
    }

    /// Sends the probe in the form of `question`. Returns why the server cannot answer it; none if it does.
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

    /// A hash over everything in a request except its messages.
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
