//! One call to a server: within its slot, its time and its bytes.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use tokio::time::Instant;

use super::wire::{Dialect, Question, Refusal, Reply, Unusable};
use super::{RemoteModel, http};
use tidemill_base::failure::{FailureClass, Poison};
use tidemill_base::http::Unread;
use tidemill_base::http::retry::{Verdict, retry_after};

/// Bytes of an answer that say nothing yet, and those that a token may take with its alternatives. A server that sends more than these for
/// the tokens it was allowed sends something else.
const BASE_BYTES: usize = 1 << 20;
const TOKEN_BYTES: usize = 4 << 10;

/// What came of one call.
pub(super) enum Attempt {
    /// An answer.
    Reply(Reply),
    /// Nothing for now; the server may have said when to come back.
    Again { reason: String, asked: Option<Duration> },
    /// Nothing until an operator mends a setting or the server.
    Settings(String),
    /// Nothing ever.
    Poison(Poison),
    /// Nothing, but perhaps in a dialect with less in it.
    Leaner(Dialect),
}

impl RemoteModel {
    /// Asks once, taking at most the time of a call and at most `left`; tells how long it took, waiting for a slot not counted.
    pub(super) async fn attempt(&self, question: &Question<'_>, dialect: Dialect, left: Duration) -> (Attempt, Duration) {
        // Nobody closes the semaphore.
        let _slot = self.slots.acquire().await;
        self.gate.pass().await;
        let start = Instant::now();
        let outcome = self.call(question, dialect, self.timeout.min(left)).await;
        (outcome, start.elapsed())
    }

    async fn call(&self, question: &Question<'_>, dialect: Dialect, timeout: Duration) -> Attempt {
        let body = question.body(&self.server_model, dialect).to_string();
        let mut request =
            self.client.post(self.completions.clone()).timeout(timeout).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.header.clone());
        }
        let again = |reason: String| Attempt::Again { reason, asked: None };
        let response = match request.send().await {
            Ok(response) => response,
            Err(e) => return again(format!("cannot be asked: {}", http::reason(&e))),
        };
        let status = response.status();
        let asked = retry_after(response.headers(), jiff::Timestamp::now());
        let most = BASE_BYTES + TOKEN_BYTES * question.max_tokens;
        let body = match (Verdict::of(status), http::read(response, most).await) {
            (Verdict::Settings, _) => return Attempt::Settings(self.settings_at_fault(status)),
            (Verdict::Again, _) => return Attempt::Again { reason: format!("answers {status}"), asked },
            (Verdict::Request, body) => {
                let refusal = Refusal::read(body.as_deref().unwrap_or_default());
                let secret = self.key.as_ref().map(|key| key.secret.as_str());
                return match dialect.without(&refusal) {
                    Some(leaner) => Attempt::Leaner(leaner),
                    None => Attempt::Poison(refusal.poison(status, secret)),
                };
            }
            (Verdict::Answer, Err(Unread::Broken(reason))) => return again(format!("breaks off its answer: {reason}")),
            // The same question would cost as much again for the same.
            (Verdict::Answer, Err(Unread::TooLarge)) => {
                let tokens = question.max_tokens;
                return Attempt::Poison(Poison {
                    class: FailureClass::Model,
                    reason: format!("the server's answer is larger than {most} bytes, which {tokens} tokens cannot be"),
                });
            }
            (Verdict::Answer, Ok(body)) => body,
        };
        match Reply::read(&body) {
            Ok(reply) => Attempt::Reply(reply),
            Err(Unusable::Foreign(reason)) => again(reason.to_owned()),
            Err(Unusable::Refused(poison)) => Attempt::Poison(poison),
        }
    }

    /// What is wrong where a document cannot be at fault, in an operator's words. The server's own might show the key.
    fn settings_at_fault(&self, status: StatusCode) -> String {
        let name = &self.info.name;
        match (status.as_u16(), &self.key) {
            (401 | 403, Some(key)) => format!("refuses the key ({status}); set the variable {} to a valid one", key.variable),
            (401 | 403, None) => {
                format!("asks for a key ({status}); set a variable to it and `models.{name}.api_key_env` to the variable's name")
            }
            (402, _) => format!("asks to be paid ({status}); mend that with whoever runs it"),
            (300..=399, _) => format!("sends elsewhere ({status}); set `models.{name}.base_url` to the address that it sends to"),
            _ => format!(
                "does not know the address or the model {:?} ({status}); correct `models.{name}.base_url` or `server_model`",
                self.server_model
            ),
        }
    }
}
