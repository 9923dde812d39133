//! A process that is still loading: it answers probes, reports that it is loading, and stops on a signal.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::free_port;
use crate::harness::worker::Worker;
use crate::harness::{eventually, open_folder};

pub async fn a_process_that_loads_answers_and_can_be_stopped() {
    // A database that accepts connections and never answers keeps the process loading, as a large model would.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = open_folder();
    std::fs::create_dir(folder.path().join("pipelines")).unwrap();
    let pipeline = "version: 1\nname: notes\nsource: { topic: t }\ntasks: { copy: { render: { template: x } } }\n";
    std::fs::write(folder.path().join("pipelines/notes.yaml"), pipeline).unwrap();
    let url = format!("postgres://nobody@{}/none", silent.local_addr().unwrap());
    let listen = format!("127.0.0.1:{}", free_port());
    let environment = [
        ("TIDEMILL_DATABASE__URL", url.as_str()),
        ("TIDEMILL_KAFKA__BROKERS", "127.0.0.1:1"),
        ("TIDEMILL_SERVER__LISTEN", listen.as_str()),
        ("TIDEMILL_SERVER__TOKEN", "s3cret-of-the-test"),
    ];
    let mut worker = Worker::start(folder.path(), &["run"], &environment);
    let client = reqwest::Client::new();
    let get = |path: &str| client.get(format!("http://{listen}{path}")).bearer_auth("s3cret-of-the-test").send();
    eventually("the process answers while it loads", Duration::from_secs(20), async || get("/healthz").await.is_ok()).await;

    assert_eq!(get("/healthz").await.unwrap().status(), 200, "a loading process would be restarted");
    assert_eq!(get("/readyz").await.unwrap().status(), 503, "a loading process is not ready");
    assert_eq!(get("/v1/search").await.unwrap().status(), 503, "a process that loads cannot search");
    let metrics = get("/metrics").await.unwrap().text().await.unwrap();
    assert!(metrics.lines().any(|line| line == "tidemill_loading 1"), "a scaler cannot see that it loads: {metrics}");
    let refused = client.get(format!("http://{listen}/metrics")).send().await.unwrap();
    assert_eq!(refused.status(), 401, "metrics need no token while it loads");

    let health = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.arg("health").args(flags).envs(environment).current_dir(folder.path());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    };
    let (code, said) = health(&["--alive"]);
    assert_eq!((code, said.trim()), (Some(0), "ok"));
    let (code, said) = health(&[]);
    assert!(code == Some(1) && said.contains("model: loading"), "`tidemill health` ends with {code:?}: {said}");

    worker.signal(Signal::SIGTERM);
    let status = worker.wait(Duration::from_secs(10));
    assert!(status.success(), "stopped while it was loading, it ended with {status}");
    let (code, said) = health(&["--alive", "--url", &format!("http://{listen}")]);
    assert!(code == Some(1) && said.contains("no answer from"), "without a process `tidemill health` ends with {code:?}: {said}");
    drop(silent);
}
