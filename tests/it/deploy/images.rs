//! The image and the compose file: what they copy, build, mount and start exists, and agrees with the pipelines.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;
use tidemill::config::Config;

use super::manifests::command_exists;
use super::tools::run;
use super::{at, configuration, document, list, path, text, word};
use crate::harness::open_folder;

pub async fn the_image_is_built_from_what_is_there() {
    let said = run(Command::new(path("deploy/replay.sh"))).unwrap_or_else(|e| panic!("{e:#}"));
    for step in ["stage builder: copies src", "--features kafka-tls", "--features cuda,kafka-tls", "replay: done"] {
        assert!(said.contains(step), "deploy/replay.sh did not get to {step:?}: {said}");
    }
    let dockerfile = text("deploy/Dockerfile");
    let stage = |name: &str| {
        let from = dockerfile.find(&format!(" AS {name}\n")).unwrap_or_else(|| panic!("there is no stage {name}"));
        let rest = &dockerfile[from..];
        &rest[..rest[1..].find("\nFROM ").map_or(rest.len(), |end| end + 1)]
    };
    for target in ["cpu", "cuda"] {
        let stage = stage(target);
        for line in
            ["USER 65532:65532", "STOPSIGNAL SIGTERM", "ENTRYPOINT [\"tidemill\"]", "CMD [\"run\"]", "EXPOSE 8080", "HEALTHCHECK"]
        {
            assert!(stage.contains(line), "the image {target} lacks {line}");
        }
        assert!(stage.contains("TIDEMILL_CONFIG=/etc/tidemill/tidemill.toml"), "the image {target} names no configuration");
    }
    let probe: Value = dockerfile
        .lines()
        .find_map(|line| line.split_once("CMD [\"tidemill\", "))
        .map(|(_, rest)| format!("[{rest}"))
        .map(|arguments| serde_json::from_str(&arguments).unwrap())
        .expect("the image has a health check");
    command_exists(list(&probe));
}

pub async fn compose_agrees_with_the_image_and_the_pipelines() {
    let compose = document("deploy/compose.yaml");
    let (config, definitions) = configuration(&text("deploy/tidemill.toml"), "/run/secrets");
    let services = at(&compose, "/services").as_object().unwrap();
    let service = |name: &str| services.get(name).unwrap_or_else(|| panic!("there is no service {name}"));

    for (name, service) in services {
        let image = word(at(service, "/image"));
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{name} runs {image} without a fixed version"));
        assert!(tag != "latest", "{name} runs {image} without a fixed version");
        for volume in list(&service["volumes"]).iter().map(word) {
            let source = volume.split(':').next().unwrap();
            match source.strip_prefix("./") {
                Some(file) => assert!(path("deploy").join(file).exists(), "{name} mounts {file}, which is not there"),
                None => {
                    assert!(compose["volumes"].get(source).is_some(), "{name} mounts the volume {source}, which is not there")
                }
            }
        }
        for secret in list(&service["secrets"]).iter().map(word) {
            assert!(compose["secrets"].get(secret).is_some(), "{name} uses the secret {secret}, which is not there");
        }
        for port in list(&service["ports"]).iter().map(word) {
            assert!(port.starts_with("127.0.0.1:"), "{name} listens on {port} for everyone");
        }
        for other in service["depends_on"].as_object().into_iter().flatten().map(|(other, _)| other) {
            assert!(services.contains_key(other), "{name} waits for {other}, which is not there");
        }
    }
    for name in ["tidemill", "models", "prometheus", "grafana"] {
        assert_eq!(at(service(name), "/read_only"), true, "{name} can write everywhere");
    }
    for (name, service) in services {
        assert_eq!(at(service, "/cap_drop/0"), "ALL", "{name} keeps rights");
        assert_eq!(at(service, "/security_opt/0"), "no-new-privileges:true", "{name} can gain rights");
    }
    assert!(service("models").get("secrets").is_none(), "the service that pulls models has secrets that it does not need");
    assert_eq!(at(service("prometheus"), "/secrets").to_string(), r#"["metrics-token"]"#, "Prometheus can do more than scrape");

    let tidemill = service("tidemill");
    let environment = at(tidemill, "/environment").as_object().unwrap();
    let variables: Vec<_> = environment.iter().map(|(name, value)| (name.clone(), word(value).to_owned())).collect();
    let layered =
        Config::layered(None, variables, &[]).unwrap_or_else(|e| panic!("a variable of the compose file is not a setting: {e}"));
    for brokers in [&layered.kafka.brokers, &config.kafka.brokers] {
        let (host, port) = brokers.split_once(':').unwrap();
        let advertised = word(at(service(host), "/environment/KAFKA_ADVERTISED_LISTENERS"));
        assert!(advertised.contains(&format!("//{host}:{port}")), "{brokers} is not where Kafka says that it is");
    }
    let grace: u64 = word(at(tidemill, "/stop_grace_period")).trim_end_matches('s').parse().unwrap();
    assert!(grace >= config.limits.drain_seconds + 15, "{grace} s to end are fewer than a drain may take");
    let port = config.server.listen.rsplit_once(':').unwrap().1;
    assert!(word(at(tidemill, "/ports/0")).ends_with(&format!(":{port}")), "another port than server.listen");

    let mounted = list(at(tidemill, "/volumes")).iter().map(word).map(|volume| volume.split(':').nth(1).unwrap());
    let mounted: BTreeSet<&str> = mounted.collect();
    let kept = [config.data_dir.join("models"), config.datasets["results"].path.clone()];
    assert_eq!(mounted, kept.iter().map(|path| path.to_str().unwrap()).collect(), "the kept folder and the mounted one");

    let pull = list(at(service("models"), "/command"));
    command_exists(pull);
    let name = word(pull.last().unwrap());
    assert_eq!(config.models[name].path, Some(config.data_dir.join("models").join(name)), "where the model is pulled to");

    // The topics that are made beforehand are those of the pipelines. A broker that makes topics by itself would hide a mistake.
    let made: BTreeSet<String> =
        word(at(service("topics"), "/environment/TOPICS")).split_whitespace().map(str::to_owned).collect();
    let topics = definitions.iter().flat_map(|definition| {
        let sinks = [&definition.sinks.topic, &definition.sinks.dead_letters].into_iter().flatten().map(|sink| sink.name.clone());
        let companies =
            definition.leads.as_ref().and_then(|leads| leads.accounts.as_ref()).map(|accounts| accounts.topic.clone());
        sinks.chain(companies).chain([definition.source.topic.clone()]).collect::<Vec<_>>()
    });
    assert_eq!(made, topics.map(|topic| topic.to_string()).collect(), "topics of compose, and those of the pipelines");
    topics_are_made(&made);

    let scrape = document("deploy/prometheus/prometheus.yml");
    assert_eq!(at(&scrape, "/scrape_configs/0/job_name"), "tidemill", "the rules look for job=\"tidemill\"");
    assert_eq!(at(&scrape, "/scrape_configs/0/dns_sd_configs/0/port").to_string(), port);
    let source = document("deploy/grafana/provisioning/datasources/prometheus.yml");
    assert_eq!(at(&source, "/datasources/0/url"), "http://prometheus:9090");
    let provider = document("deploy/grafana/provisioning/dashboards/tidemill.yml");
    let folder = word(at(&provider, "/providers/0/options/path"));
    let mounts = list(at(service("grafana"), "/volumes"));
    assert!(mounts.iter().any(|m| word(m).contains(&format!("dashboards:{folder}"))), "no dashboard is mounted at {folder}");

    let gpu = document("deploy/compose.gpu.yaml");
    assert_eq!(at(&gpu, "/services/tidemill/build/target"), "cuda");
}

/// The script calls Kafka's own script for each topic. Here a substitute writes down its arguments.
fn topics_are_made(topics: &BTreeSet<String>) {
    let folder = open_folder();
    let (bin, asked) = (folder.path().join("bin"), folder.path().join("asked"));
    std::fs::create_dir(&bin).unwrap();
    let stand_in = bin.join("kafka-topics.sh");
    std::fs::write(&stand_in, format!("#!/bin/sh\necho \"$@\" >>{}\n", asked.display())).unwrap();
    std::fs::set_permissions(&stand_in, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut script = Command::new("bash");
    let words: Vec<&str> = topics.iter().map(String::as_str).collect();
    script.arg(path("deploy/kafka/make-topics.sh")).env("TOPICS", words.join(" ")).env("BROKERS", "kafka:9092");
    script.env("KAFKA_HOME", folder.path());
    run(script).unwrap();
    let asked = std::fs::read_to_string(asked).unwrap();
    let made: BTreeSet<String> = asked
        .lines()
        .map(|line| {
            assert!(line.starts_with("--bootstrap-server kafka:9092 --create --if-not-exists "), "{line}");
            line.split_once("--topic ").unwrap().1.split(' ').next().unwrap().to_owned()
        })
        .collect();
    assert_eq!(&made, topics);
}

pub async fn secrets_are_made_once() {
    let folder = open_folder();
    let secrets = folder.path().join("secrets");
    let make = || {
        let mut script = Command::new(path("deploy/secrets.sh"));
        script.arg(&secrets);
        run(script).unwrap();
        let mut files: Vec<_> = std::fs::read_dir(&secrets).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
            .into_iter()
            .map(|file| (file.file_name().unwrap().to_owned(), std::fs::read_to_string(&file).unwrap()))
            .collect::<Vec<_>>()
    };
    let made = make();
    assert_eq!(made, make(), "a second run changes secrets that are in use");
    let compose = document("deploy/compose.yaml");
    let asked: BTreeSet<&str> = at(&compose, "/secrets").as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(asked, made.iter().map(|(name, _)| name.to_str().unwrap()).collect(), "secrets of compose, and those made");
    let value = |name: &str| made.iter().find(|(file, _)| file == name).unwrap().1.trim().to_owned();
    assert_eq!(value("token").len(), 48);
    assert_ne!(value("token"), value("postgres-password"));
    assert!(value("database-url").contains(&value("postgres-password")), "the URL holds another password");
    let mode = std::fs::metadata(&secrets).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "others can enter the folder of secrets");
}
