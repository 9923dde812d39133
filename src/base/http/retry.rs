//! When to repeat a request, and how long to wait before.
//!
//! | answer | consequence |
//! |---|---|
//! | no connection, no answer in time, a broken body, 408, 425, 429, 5xx | the request is repeated after a wait; if all attempts fail, the stream pauses |
//! | 401, 402, 403, 404, 405, 407, 410, a redirect | the stream pauses: the settings are wrong, so that every document would fail |
//! | any other 4xx, a refusal, a filtered answer | a dead letter: this document is at fault |

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::time::Instant;

/// How often and for how long to repeat a request.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// How often a request is sent at most.
    pub attempts: u32,
    /// The wait before the second attempt. It doubles with every further attempt.
    pub first_wait: Duration,
    /// The longest wait between attempts, and the longest `Retry-After` that is followed.
    pub longest_wait: Duration,
    /// How long all attempts and waits may take together.
    pub total: Duration,
}

impl RetryPolicy {
    /// The policy for calls that take at most `timeout` each. Its total stays well below the time after which the watchdog ends a
    /// process with a batch in flight.
    pub fn new(timeout: Duration) -> Self {
        Self { attempts: 5, first_wait: Duration::from_millis(500), longest_wait: Duration::from_secs(30), total: 3 * timeout }
    }

    /// The wait after failed attempt number `attempt`, counted from 1; `asked` is the server's `Retry-After`. None where the server
    /// asks for more than [`RetryPolicy::longest_wait`].
    pub fn wait(&self, attempt: u32, asked: Option<Duration>) -> Option<Duration> {
        if let Some(asked) = asked {
            return (asked <= self.longest_wait).then_some(asked);
        }
        let doubled = self.first_wait.saturating_mul(1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX));
        // A random share between half and all of it, so that clients that failed together do not retry together.
        let share = 0.5 + RandomState::new().hash_one(attempt) as f64 / u64::MAX as f64 / 2.0;
        Some(doubled.min(self.longest_wait).mul_f64(share))
    }
}

/// What an HTTP status means for the caller; see the table at the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusClass {
    Answer,
    /// A temporary failure of the server: repeat the request.
    Again,
    /// The operator's settings are wrong.
    Settings,
    /// The request is wrong.
    Request,
}

impl StatusClass {
    /// Classifies a status by that table.
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            200..=299 => Self::Answer,
            408 | 425 | 429 => Self::Again,
            401 | 402 | 403 | 404 | 405 | 407 | 410 => Self::Settings,
            400..=499 => Self::Request,
            300..=399 => Self::Settings,
            _ => Self::Again,
        }
    }
}

/// The wait that the server's `Retry-After` header asks for, in seconds or until a date. A date in the past is a wait of zero.
pub fn retry_after(headers: &HeaderMap, now: jiff::Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// Makes all calls to one server wait after the server asked for a wait.
#[derive(Debug, Default)]
pub struct BackoffGate {
    until: Mutex<Option<Instant>>,
}

impl BackoffGate {
    /// Closes the gate for this long, or longer if it is closed for longer already.
    pub fn close(&self, wait: Duration) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Instant::now() + wait;
        *until = Some(until.map_or(new, |old| old.max(new)));
    }

    /// Waits until the gate is open.
    pub async fn pass(&self) {
        loop {
            let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())])
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now: jiff::Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
        assert_eq!(retry_after(&headers("7"), now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("0.5"), now), Some(Duration::from_millis(500)));
        assert_eq!(retry_after(&headers("Sun, 06 Nov 1994 08:49:37 GMT"), now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after(&headers("Sun, 06 Nov 1994 08:00:00 GMT"), now), Some(Duration::ZERO), "long past");
        for text in ["soon", "-3", "NaN", "1e400", ""] {
            assert_eq!(retry_after(&headers(text), now), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_asks_for_a_wait_or_for_nothing(bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "[-+]?[0-9]{0,25}[.]?[0-9]{0,3}(e[0-9]{1,3})?".prop_map(String::into_bytes),
            "(Sun|Mon), [0-9]{1,2} (Nov|Feb) [0-9]{1,5} [0-9]{2}:[0-9]{2}:[0-9]{2} (GMT|[+-][0-9]{4})".prop_map(String::into_bytes),
        ]) {
            let now = jiff::Timestamp::UNIX_EPOCH;
            if let Ok(value) = reqwest::header::HeaderValue::from_bytes(&bytes) {
                let asked = retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]), now);
                let policy = RetryPolicy::new(Duration::from_secs(60));
                prop_assert!(policy.wait(1, asked).is_none_or(|wait| wait <= policy.longest_wait));
            }
        }
    }

    #[test]
    fn waits_double_with_jitter_and_never_pass_the_bound() {
        let policy = RetryPolicy { longest_wait: Duration::from_secs(4), ..RetryPolicy::new(Duration::from_secs(60)) };
        for (attempt, most) in [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 4.0), (99, 4.0)] {
            let wait = policy.wait(attempt, None).unwrap().as_secs_f64();
            assert!((most / 2.0..=most).contains(&wait), "attempt {attempt} waits {wait} s");
        }
        assert_eq!(policy.wait(1, Some(Duration::from_secs(3))), Some(Duration::from_secs(3)));
        assert_eq!(policy.wait(1, Some(Duration::from_secs(5))), None, "more than we wait");
    }

    #[test]
    fn every_status_is_somebodys_fault() {
        let verdict = |status: u16| StatusClass::of(StatusCode::from_u16(status).unwrap());
        for (status, expected) in [
            (200, StatusClass::Answer),
            (307, StatusClass::Settings),
            (400, StatusClass::Request),
            (401, StatusClass::Settings),
            (404, StatusClass::Settings),
            (413, StatusClass::Request),
            (422, StatusClass::Request),
            (429, StatusClass::Again),
            (500, StatusClass::Again),
            (529, StatusClass::Again),
        ] {
            assert_eq!(verdict(status), expected, "{status}");
        }
    }
}
