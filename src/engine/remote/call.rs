//! One call to a server, with limits for concurrency, time and size.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use tokio::time::Instant;

use super::chat_request::ChatRequest;
use super::dialect::Dialect;
use super::refusal::Refusal;
use super::reply::{Reply, UnusableReply};
use super::{RemoteModel, http};
use tidemill_base::failure::{FailureClass, Poison};
use tidemill_base::http::BodyError;
use tidemill_base::http::retry::{StatusClass, retry_after};

/// The largest plausible answer: a base, plus an amount for each allowed token with its alternatives. A larger one is not an answer
/// to the request.
const BASE_BYTES: usize = 1 << 20;
const TOKEN_BYTES: usize = 4 << 10;

/// The outcome of one call.
pub(super) enum CallOutcome {
    Reply(Reply),
    /// No answer for now: the call may be repeated.
    Retry(RetryableFailure),
    /// No answer until an operator fixes a setting or the server.
    SettingsFault(String),
    Poison(Poison),
    /// The server refuses the request because of the document, a parameter or the settings.
    Refused {
        status: StatusCode,
        refusal: Refusal,
    },
}

/// Why there is no answer for now.
pub(super) struct RetryableFailure {
    pub(super) reason: String,
    /// When to call again, if the server said so.
    pub(super) requested_wait: Option<Duration>,
    pub(super) source: FaultSource,
    /// The server's message, if it may be about a parameter.
    refusal: Option<Refusal>,
}

/// The likely cause of a missing answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultSource {
    /// The server: it is unreachable or busy.
    Server,
    /// The server, or the document.
    Either,
    /// More likely the document: the server answered, but not with a usable completion.
    Document,
}

impl RetryableFailure {
    fn new(reason: impl Into<String>, source: FaultSource) -> Self {
        Self { reason: reason.into(), requested_wait: None, source, refusal: None }
    }
}

impl CallOutcome {
    /// The server's message, if it may be about a parameter.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            Self::Retry(again) => again.refusal.as_ref(),
            Self::Reply(_) | Self::SettingsFault(_) | Self::Poison(_) => None,
        }
    }
}

impl RemoteModel {
    /// Calls the server once, for at most the model's timeout and at most `left`. Also returns the time it took, without the time
    /// of waiting for a slot.
    pub(super) async fn attempt(&self, question: &ChatRequest<'_>, dialect: Dialect, left: Duration) -> (CallOutcome, Duration) {
        // The semaphore is never closed.
        let _slot = self.slots.acquire().await;
        self.gate.pass().await;
        let start = Instant::now();
        let outcome = self.call(question, dialect, self.timeout.min(left)).await;
        (outcome, start.elapsed())
    }

    async fn call(&self, question: &ChatRequest<'_>, dialect: Dialect, timeout: Duration) -> CallOutcome {
        let body = question.body(&self.server_model, dialect).to_string();
        let mut request =
            self.client.post(self.completions.clone()).timeout(timeout).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.header.clone());
        }
        let again = |reason: String, source| CallOutcome::Retry(RetryableFailure::new(reason, source));
        let response = match request.send().await {
            Ok(response) => response,
            Err(e) => {
                let source = if e.is_connect() { FaultSource::Server } else { FaultSource::Either };
                return again(format!("cannot be reached: {}", http::reason(&e)), source);
            }
        };
        let status = response.status();
        let requested_wait = retry_after(response.headers(), jiff::Timestamp::now());
        let most = BASE_BYTES + TOKEN_BYTES * question.max_tokens;
        let body = http::read(response, most).await;
        if StatusClass::of(status) != StatusClass::Answer {
            let refusal = Refusal::read(body.as_deref().unwrap_or_default(), self.secret());
            return self.refused_with(status, refusal, requested_wait);
        }
        let body = match body {
            Ok(body) => body,
            Err(BodyError::Broken(reason)) => return again(format!("breaks off its answer: {reason}"), FaultSource::Either),
            // The same request would cost as much again, with the same result.
            Err(BodyError::TooLarge) => {
                let tokens = question.max_tokens;
                return CallOutcome::Poison(Poison {
                    class: FailureClass::Model,
                    reason: format!("the server's answer is larger than {most} bytes, which is impossible for {tokens} tokens"),
                });
            }
        };
        match Reply::read(&body, question) {
            Ok(reply) => CallOutcome::Reply(reply),
            Err(UnusableReply::NotACompletion(reason)) => again(reason, FaultSource::Document),
            Err(UnusableReply::Refused(poison)) => CallOutcome::Poison(poison),
            Err(UnusableReply::Error(refusal)) => {
                let refusal = refusal.without(self.secret());
                match refusal.status() {
                    Some(status) => self.refused_with(status, refusal, requested_wait),
                    None if refusal.is_of_load() => {
                        again(format!("answers with an error{}", refusal.quoted()), FaultSource::Server)
                    }
                    None => again(format!("answers with an error{}", refusal.quoted()), FaultSource::Document),
                }
            }
        }
    }

    /// The outcome of an error status, of the response or inside its body.
    fn refused_with(&self, status: StatusCode, refusal: Refusal, requested_wait: Option<Duration>) -> CallOutcome {
        match (StatusClass::of(status), status.as_u16()) {
            // No pause helps: the request alone may exceed a quota per minute.
            (StatusClass::Again, 429) if refusal.is_of_length() => CallOutcome::Refused { status, refusal },
            // Some servers refuse a parameter or a document with this status, which usually refuses the key.
            (StatusClass::Request, _) | (StatusClass::Settings, 403) => CallOutcome::Refused { status, refusal },
            (StatusClass::Settings, _) => CallOutcome::SettingsFault(self.settings_at_fault(status, &refusal)),
            (StatusClass::Again | StatusClass::Answer, code) => {
                let reason = format!("answers {status}{}", refusal.quoted());
                let source = if matches!(code, 408 | 425 | 429 | 503 | 529) { FaultSource::Server } else { FaultSource::Either };
                let refusal = matches!(code, 500 | 501).then_some(refusal);
                CallOutcome::Retry(RetryableFailure { reason, requested_wait, source, refusal })
            }
        }
    }

    fn secret(&self) -> Option<&str> {
        self.key.as_ref().map(|key| key.secret.as_str())
    }

    /// Describes a fault that no document can have caused, and how to fix it. The server's own message is shortened, and the key is
    /// removed from it.
    pub(super) fn settings_at_fault(&self, status: StatusCode, refusal: &Refusal) -> String {
        let name = &self.info.name;
        let fix = match (status.as_u16(), &self.key) {
            (401 | 403, Some(key)) => format!("refuses the key ({status}); set the variable {} to a valid one", key.variable),
            (401 | 403, None) => {
                format!(
                    "requires a key ({status}); set an environment variable to it and `models.{name}.api_key_env` to the variable's name"
                )
            }
            (402, _) => format!("requires payment ({status}); settle it with the server's operator"),
            (300..=399, _) => format!("redirects to another address ({status}); set `models.{name}.base_url` to that address"),
            _ => format!(
                "does not know the address or the model {:?} ({status}); correct `models.{name}.base_url` or `server_model`",
                self.server_model
            ),
        };
        format!("{fix}{}", refusal.quoted())
    }
}
