//! A receiver of webhooks that answers as a test says, and remembers every call.

use std::collections::VecDeque;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::TcpListener;

/// The secret that signs calls.
pub const SECRET: &str = "whsec_dGhlIHRlc3RzIG9mIGxlYWRzIHNpZ24gd2l0aCB0aGlz";

/// How one call is answered.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    Status(u16),
    /// 429 with a `Retry-After` of so many seconds.
    RetryAfter(u64),
    /// No answer for longer than the sender waits.
    Hang,
    /// A redirect to another address.
    Redirect,
}

/// A call as it came.
#[derive(Debug, Clone)]
pub struct Call {
    pub path: String,
    pub id: String,
    pub timestamp: String,
    pub signature: String,
    pub text: String,
    pub body: Value,
}

#[derive(Default)]
struct Script {
    answers: VecDeque<Answer>,
    after: Option<Answer>,
    calls: Vec<Call>,
}

/// A running receiver.
pub struct Receiver {
    script: Arc<Mutex<Script>>,
    port: u16,
}

impl Receiver {
    /// Starts a receiver that gives these answers in turn, and 200 from then on.
    pub async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let script = Arc::new(Mutex::new(Script { answers: answers.into_iter().collect(), ..Script::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(take).with_state(script.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { script, port }
    }

    /// Sets the answer after the list, instead of 200.
    pub fn then(&self, answer: Answer) {
        self.script.lock().unwrap().after = Some(answer);
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    pub fn calls(&self) -> Vec<Call> {
        self.script.lock().unwrap().calls.clone()
    }
}

async fn take(State(script): State<Arc<Mutex<Script>>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let call = Call {
        path: uri.path().to_owned(),
        id: said("webhook-id"),
        timestamp: said("webhook-timestamp"),
        signature: said("webhook-signature"),
        body: serde_json::from_str(&text).unwrap(),
        text,
    };
    let answer = {
        let mut script = script.lock().unwrap();
        script.calls.push(call);
        script.answers.pop_front().or(script.after).unwrap_or(Answer::Status(200))
    };
    match answer {
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::RetryAfter(seconds) => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds)]).into_response(),
        Answer::Redirect => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/elsewhere")]).into_response(),
        Answer::Hang => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            StatusCode::OK.into_response()
        }
    }
}

/// Checks the call's signature as a receiver would, with Python's own library.
pub fn verify(call: &Call) {
    let program = "import base64, hashlib, hmac, json, sys\n\
                   call = json.load(sys.stdin)\n\
                   key = base64.b64decode(call['secret'].removeprefix('whsec_'))\n\
                   signed = '.'.join([call['id'], call['timestamp'], call['text']]).encode()\n\
                   print('v1,' + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode())";
    let told = serde_json::json!({ "secret": SECRET, "id": call.id, "timestamp": call.timestamp, "text": call.text });
    assert_eq!(python(program, &told.to_string()).trim(), call.signature, "the signature of {}", call.id);
    let sent: i64 = call.timestamp.parse().unwrap();
    let now = jiff::Timestamp::now().as_second();
    assert!((now - 300..=now).contains(&sent), "the call says that it was sent at {sent}, and it is {now}");
}

/// Runs a Python program on `input` and returns its stdout.
pub fn python(program: &str, input: &str) -> String {
    let mut python = Command::new("python3");
    python.args(["-X", "utf8", "-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().expect("python3 is there");
    child.stdin.take().unwrap().write_all(input.trim_start_matches('\u{feff}').as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "python3 ends with {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}
