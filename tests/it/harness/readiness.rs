//! What a worker answers at `/readyz`.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::eventually;
use super::free_port;
use super::worker::Worker;

/// An address of this machine that nothing listens at.
pub fn listen() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// Status and body of `/readyz`; none where nothing answers.
pub async fn readiness(listen: &str) -> Option<(u16, String)> {
    let response = reqwest::get(format!("http://{listen}/readyz")).await.ok()?;
    Some((response.status().as_u16(), response.text().await.ok()?))
}

/// Waits until `/readyz` answers with 200.
pub async fn assert_ready(listen: &str, worker: &Worker) {
    eventually(&format!("/readyz is 200; the worker says:\n{}", worker.log()), Duration::from_secs(60), || async {
        readiness(listen).await.is_some_and(|(status, _)| status == 200)
    })
    .await;
}

/// Waits until `/readyz` answers with 503, and returns the body.
pub async fn not_ready(listen: &str, worker: &Worker) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match readiness(listen).await {
            Some((503, reason)) => return reason,
            _ if Instant::now() > deadline => panic!("/readyz never said 503; the worker says:\n{}", worker.log()),
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Waits until `/readyz` answers with 503 and a body that contains `words`, and returns the body.
pub async fn says(listen: &str, worker: &Worker, words: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut last = String::new();
    loop {
        if let Some((status, body)) = readiness(listen).await {
            if status == 503 && body.contains(words) {
                return body;
            }
            last = body;
        }
        assert!(Instant::now() < deadline, "/readyz never said `{words}` but {last}; the worker says:\n{}", worker.log());
        sleep(Duration::from_millis(100)).await;
    }
}
