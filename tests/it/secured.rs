//! Kafka with authentication: streams over passwords and TLS, and the error messages where the broker refuses them.

use std::time::Duration;

use libtest_mimic::Trial;
use tokio::task::spawn_blocking;

use crate::harness::readiness::{assert_ready, listen, says};
use crate::harness::secured::{PASSWORD, SecuredBroker, USER, VISITOR};
use crate::harness::trial::{Needs, trial};
use crate::test_stream::TestStream;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let limit = Duration::from_secs(300);
    vec![
        trial!(Needs::KAFKA.within(limit), a_password_in_plain_text_needs_no_tls_in_the_build),
        trial!(Needs::KAFKA_TLS.within(limit), the_walk_needs_the_password_and_the_authority_and_nothing_else),
    ]
}

async fn a_password_in_plain_text_needs_no_tls_in_the_build() {
    let broker = spawn_blocking(SecuredBroker::start).await.unwrap();
    walk(&broker, &broker.passwords, "sasl_plaintext", "plain").await;
    wrong_password(&broker, "plain").await;
    no_rights(&broker, "plain").await;
}

/// One broker serves all cases, because starting one takes most of the time.
async fn the_walk_needs_the_password_and_the_authority_and_nothing_else() {
    let broker = spawn_blocking(SecuredBroker::start).await.unwrap();
    walk(&broker, &broker.passwords, "sasl_plaintext", "scram-sha-256").await;
    walk(&broker, &broker.tls, "sasl_ssl", "scram-sha-256").await;
    walk(&broker, &broker.tls, "sasl_ssl", "scram-sha-512").await;
    walk(&broker, &broker.tls, "sasl_ssl", "plain").await;
    wrong_password(&broker, "scram-sha-256").await;
    wrong_authority(&broker).await;
    no_rights(&broker, "scram-sha-256").await;
}

/// A stream whose workers use the listener at `address`. The test itself uses the listener without authentication.
async fn stream(broker: &SecuredBroker, address: &str, security: &str) -> TestStream {
    let stream = TestStream::new(broker.client.clone(), 1).await;
    std::fs::write(stream.path("password"), format!("{PASSWORD}\n")).unwrap();
    let open = broker.client.brokers.clone();
    stream.amend("tidemill.toml", |text| {
        format!("{}[kafka.security]\nusername = \"{USER}\"\n{security}", text.replace(&open, address))
    });
    stream
}

async fn walk(broker: &SecuredBroker, address: &str, protocol: &str, mechanism: &str) {
    let mut security = format!("protocol = \"{protocol}\"\nmechanism = \"{mechanism}\"\npassword_file = \"password\"\n");
    if protocol == "sasl_ssl" {
        security += &format!("ca_file = \"{}\"\n", broker.certificate("broker").display());
    }
    let stream = stream(broker, address, &security).await;
    let url = listen();
    let worker = stream.worker_at(&url, "");
    stream.send(0..50).await;
    stream.drained(50, Duration::from_secs(60)).await;
    assert_ready(&url, &worker).await;
    stream.assert_exactly_once(50, 0).await;
}

async fn wrong_password(broker: &SecuredBroker, mechanism: &str) {
    let security = format!("protocol = \"sasl_plaintext\"\nmechanism = \"{mechanism}\"\npassword_file = \"password\"\n");
    let stream = stream(broker, &broker.passwords, &security).await;
    std::fs::write(stream.path("password"), "wrong-88888").unwrap();
    let url = listen();
    let mut worker = stream.worker_at(&url, "");
    stream.send(0..5).await;
    let told = says(&url, &worker, "authentication failed").await;
    assert!(told.contains("broker") && told.contains("`kafka.security.username`"), "/readyz says {told}");
    assert!(worker.ended().is_none(), "the process did not wait for another password:\n{}", worker.log());
    let log = worker.log();
    assert!(log.contains("authentication failed"), "the log does not say why:\n{log}");
    assert!(!log.contains("88888"), "the log shows the password:\n{log}");
    worker.kill();

    std::fs::write(stream.path("password"), PASSWORD).unwrap();
    let _worker = stream.worker("");
    stream.drained(5, Duration::from_secs(60)).await;
    stream.assert_exactly_once(5, 0).await;
}

async fn wrong_authority(broker: &SecuredBroker) {
    let security = format!(
        "protocol = \"sasl_ssl\"\nmechanism = \"scram-sha-256\"\npassword_file = \"password\"\nca_file = \"{}\"\n",
        broker.certificate("stranger").display()
    );
    let stream = stream(broker, &broker.tls, &security).await;
    let url = listen();
    let worker = stream.worker_at(&url, "");
    let told = says(&url, &worker, "TLS failed").await;
    assert!(told.contains("certificate") && told.contains("`kafka.security.ca_file`"), "/readyz says {told}");
}

async fn no_rights(broker: &SecuredBroker, mechanism: &str) {
    let security = format!("protocol = \"sasl_plaintext\"\nmechanism = \"{mechanism}\"\npassword_file = \"password\"\n");
    let stream = stream(broker, &broker.passwords, &security).await;
    stream.amend("tidemill.toml", |text| text.replace(&format!("username = \"{USER}\""), &format!("username = \"{VISITOR}\"")));
    let url = listen();
    let worker = stream.worker_at(&url, "");
    let told = says(&url, &worker, "do not let this user read topic").await;
    assert!(told.contains("grant it Read"), "/readyz says {told}");
}
