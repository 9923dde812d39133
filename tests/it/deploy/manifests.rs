//! Manifests: valid by Kubernetes' own schemas, with few rights, and in agreement with configuration and code.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::kustomize::rendered;
use super::tools::schema;
use super::{at, configuration, document, list, word};

/// The folders that can be applied.
const FOLDERS: [&str; 3] = ["deploy/kubernetes/base", "deploy/kubernetes/gpu", "deploy/kubernetes/autoscaling"];

/// The oldest and the newest version of Kubernetes whose schemas the manifests must follow.
const VERSIONS: [&str; 2] = ["1.34.0", "1.37.0"];

/// Kinds that Kubernetes' schemas do not cover; their shape is checked here.
const FOREIGN: [&str; 1] = ["ScaledObject"];

/// Seconds that the process needs besides its drain: up to five to leave the consumer group, three for slow callers, two for
/// the rest, and some more for a busy node.
const BESIDE_THE_DRAIN: u64 = 15;

pub async fn kubernetes_takes_the_manifests() {
    for folder in FOLDERS {
        let manifests = rendered(folder);
        assert!(manifests.len() > 8, "{folder} holds hardly anything");
        for manifest in manifests.iter().filter(|manifest| !FOREIGN.contains(&word(&manifest["kind"]))) {
            for version in VERSIONS {
                let faults = faults(manifest, version);
                assert_eq!(
                    faults, [""; 0],
                    "{folder}, Kubernetes {version}: {} {}",
                    manifest["kind"], manifest["metadata"]["name"]
                );
            }
        }
    }
}

pub async fn a_manifest_with_a_fault_is_found() {
    let deployment = one(&rendered(FOLDERS[0]), "Deployment");
    let spoil = |pointer: &str, value: Value| {
        let mut spoilt = deployment.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        spoilt.pointer_mut(parent).unwrap()[key] = value;
        faults(&spoilt, VERSIONS[1])
    };
    let unknown = spoil("/spec/template/spec/terminationGracePeriod", Value::from(5));
    assert!(
        unknown.iter().any(|fault| fault.contains("terminationGracePeriod")),
        "a key that does not exist passes: {unknown:?}"
    );
    assert_ne!(spoil("/spec/replicas", Value::from("two")), [""; 0], "a text in the place of a number passes");
    assert_ne!(spoil("/spec/template", Value::from("pod")), [""; 0], "a text in the place of a pod passes");
}

fn faults(manifest: &Value, version: &str) -> Vec<String> {
    let (kind, api_version) = (word(&manifest["kind"]), word(&manifest["apiVersion"]));
    let Some(schema) = schema(version, kind, api_version) else {
        return vec![format!("Kubernetes {version} knows no {kind} of {api_version}")];
    };
    let validator = jsonschema::validator_for(&schema).unwrap();
    validator.iter_errors(manifest).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn named(manifests: &[Value], kind: &str, name: &str) -> Value {
    let found = manifests.iter().find(|manifest| manifest["kind"] == kind && manifest["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}")).clone()
}

fn one(manifests: &[Value], kind: &str) -> Value {
    let mut found = manifests.iter().filter(|manifest| manifest["kind"] == kind);
    let (first, next) = (found.next(), found.next());
    assert!(next.is_none(), "there is more than one {kind}");
    first.unwrap_or_else(|| panic!("there is no {kind}")).clone()
}

pub async fn manifests_agree_with_the_code() {
    for folder in FOLDERS {
        let manifests = rendered(folder);
        let toml = word(at(&one(&manifests, "ConfigMap"), "/data/tidemill.toml")).to_owned();
        let (config, _) = configuration(&toml, "/run/secrets/tidemill");
        let deployment = one(&manifests, "Deployment");
        let pod = at(&deployment, "/spec/template/spec");

        let pause = at(pod, "/containers/0/lifecycle/preStop/sleep/seconds").as_u64().unwrap();
        let grace = at(pod, "/terminationGracePeriodSeconds").as_u64().unwrap();
        let needed = pause + config.limits.drain_seconds + BESIDE_THE_DRAIN;
        assert!(grace >= needed, "{folder}: {grace} s to end are fewer than the {needed} s that a drain may take");

        let port = config.server.listen.rsplit_once(':').unwrap().1.parse::<u64>().unwrap();
        assert_eq!(at(pod, "/containers/0/ports/0/containerPort"), port, "{folder}: the port is not that of server.listen");
        for (probe, path) in [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            assert_eq!(at(pod, &format!("/containers/0/{probe}/httpGet/path")), path, "{folder}: {probe}");
            assert_eq!(at(pod, &format!("/containers/0/{probe}/httpGet/port")), "http", "{folder}: {probe}");
        }
        assert_eq!(at(&one(&manifests, "Service"), "/spec/ports/0/port"), port);
        assert_eq!(at(&named(&manifests, "NetworkPolicy", "tidemill"), "/spec/ingress/0/ports/0/port"), port);
        for policy in manifests.iter().filter(|manifest| manifest["kind"] == "NetworkPolicy") {
            for rule in list(&policy["spec"]["egress"]) {
                assert!(!list(&rule["to"]).is_empty(), "{folder}: pods may go anywhere by {rule}");
            }
        }
        let pull = one(&manifests, "Job").to_string();
        assert!(!pull.contains("secretName"), "{folder}: the service that pulls models has secrets that it does not need");

        let labels = at(&deployment, "/spec/template/metadata/labels");
        for (kind, pointer) in [
            ("Deployment", "/spec/selector/matchLabels"),
            ("Service", "/spec/selector"),
            ("PodDisruptionBudget", "/spec/selector/matchLabels"),
        ] {
            for (label, value) in at(&one(&manifests, kind), pointer).as_object().unwrap() {
                assert_eq!(&labels[label], value, "{folder}: {kind} selects another {label} than the pods have");
            }
        }
        for workload in ["Deployment", "Job"] {
            let workload = one(&manifests, workload);
            let pod = at(&workload, "/spec/template/spec");
            is_careful(folder, pod);
            mounts_fit(folder, pod, &manifests);
            command_exists(list(at(pod, "/containers/0/args")));
        }
        for path in [config.data_dir.join("models"), config.datasets["results"].path.clone()] {
            let mounts = list(at(pod, "/containers/0/volumeMounts")).iter();
            let mounts: Vec<&str> = mounts.map(|mount| word(&mount["mountPath"])).collect();
            assert!(mounts.contains(&path.to_str().unwrap()), "{folder}: nothing is mounted at {}", path.display());
        }
    }
    let gpu = one(&rendered("deploy/kubernetes/gpu"), "Deployment");
    assert_eq!(at(&gpu, "/spec/template/spec/containers/0/resources/limits/nvidia.com~1gpu"), 1);
    assert_eq!(at(&gpu, "/spec/template/spec/containers/0/image"), "tidemill:cuda");
}

/// Checks that a container does not run as root, can write only to mounts, cannot gain rights, and has no credentials of the
/// cluster.
fn is_careful(folder: &str, pod: &Value) {
    assert_eq!(at(pod, "/securityContext/runAsNonRoot"), true, "{folder}");
    assert_eq!(at(pod, "/securityContext/runAsUser"), 65532, "{folder}: the image's user");
    assert_eq!(at(pod, "/securityContext/seccompProfile/type"), "RuntimeDefault", "{folder}");
    assert_eq!(at(pod, "/automountServiceAccountToken"), false, "{folder}");
    for container in list(at(pod, "/containers")) {
        assert_eq!(at(container, "/securityContext/readOnlyRootFilesystem"), true, "{folder}");
        assert_eq!(at(container, "/securityContext/allowPrivilegeEscalation"), false, "{folder}");
        assert_eq!(at(container, "/securityContext/capabilities/drop/0"), "ALL", "{folder}");
        assert!(container.pointer("/resources/limits/memory").is_some(), "{folder}: memory has no limit");
    }
}

/// Checks that every mount has its volume, and that every volume's source exists.
fn mounts_fit(folder: &str, pod: &Value, manifests: &[Value]) {
    let volumes: BTreeMap<&str, &Value> = list(at(pod, "/volumes")).iter().map(|v| (word(&v["name"]), v)).collect();
    for mount in list(at(pod, "/containers/0/volumeMounts")) {
        assert!(volumes.contains_key(word(&mount["name"])), "{folder}: {mount} has no volume");
    }
    let is_there = |kind: &str, name: &Value| manifests.iter().any(|m| m["kind"] == kind && m["metadata"]["name"] == *name);
    for volume in volumes.values() {
        if let Some(claim) = volume.pointer("/persistentVolumeClaim/claimName") {
            assert!(is_there("PersistentVolumeClaim", claim), "{folder}: there is no claim {claim}");
        }
        if let Some(map) = volume.pointer("/configMap/name") {
            assert!(is_there("ConfigMap", map), "{folder}: there is no configuration map {map}");
        }
    }
    let account = at(pod, "/serviceAccountName");
    assert!(is_there("ServiceAccount", account), "{folder}: there is no service account {account}");
}

/// Checks that the binary accepts the arguments. With `--help` after them it explains the command and does not run it.
pub fn command_exists(arguments: &[Value]) {
    let arguments: Vec<&str> = arguments.iter().map(word).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill")).args(&arguments).arg("--help").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let command: Vec<&str> = arguments.iter().copied().take_while(|word| word.chars().all(|c| c.is_ascii_lowercase())).collect();
    let usage = format!("Usage: tidemill {}", command.join(" "));
    assert!(output.status.success() && said.contains(&usage), "tidemill has no command {arguments:?}: {said}");
}

pub async fn scaling_looks_at_the_topics_of_the_pipelines() {
    let manifests = rendered("deploy/kubernetes/autoscaling");
    let scaled = one(&manifests, "ScaledObject");
    let (config, definitions) =
        configuration(word(at(&one(&manifests, "ConfigMap"), "/data/tidemill.toml")), "/run/secrets/tidemill");
    assert_eq!(at(&scaled, "/apiVersion"), "keda.sh/v1alpha1");
    let deployment = one(&manifests, "Deployment");
    assert_eq!(at(&scaled, "/spec/scaleTargetRef/name"), at(&deployment, "/metadata/name"));
    assert!(deployment.pointer("/spec/replicas").is_none(), "both the deployment and KEDA set the number of workers");
    let bounds = ["/spec/minReplicaCount", "/spec/maxReplicaCount"].map(|bound| at(&scaled, bound).as_u64().unwrap());
    assert!(bounds[0] < bounds[1], "nothing is scaled within {bounds:?}");

    let triggers = list(at(&scaled, "/spec/triggers"));
    let of = |kind: &str| triggers.iter().filter(|t| t["type"] == kind).map(|t| at(t, "/metadata").clone()).collect::<Vec<_>>();
    let (kafka, prometheus) = (of("kafka"), of("prometheus"));
    assert_eq!(kafka.len() + prometheus.len(), triggers.len(), "a trigger is of a kind that this check does not know");
    let known = ["bootstrapServers", "consumerGroup", "topic", "lagThreshold", "activationLagThreshold", "offsetResetPolicy"];
    let known: Vec<&str> = known.into_iter().chain(["allowIdleConsumers"]).collect();
    let mut watched = BTreeSet::new();
    for metadata in &kafka {
        for (key, value) in metadata.as_object().unwrap() {
            assert!(known.contains(&key.as_str()) && value.is_string(), "KEDA takes texts for {known:?}: {key} is {value}");
        }
        assert!(word(&metadata["lagThreshold"]).parse::<u64>().unwrap() > 0);
        assert_eq!(metadata["bootstrapServers"], config.kafka.brokers, "KEDA asks another Kafka than tidemill");
        watched.insert((word(&metadata["topic"]).to_owned(), word(&metadata["consumerGroup"]).to_owned()));
    }
    // `source/kafka.rs` makes the group's name in this way.
    let read = definitions.iter().map(|d| (d.source.topic.clone(), format!("tidemill.{}", d.name)));
    assert_eq!(watched, read.collect(), "topics and groups that KEDA watches, and those of the pipelines");

    let [activity] = prometheus.as_slice() else { panic!("one query counts what is in progress: {prometheus:?}") };
    let query = word(&activity["query"]);
    let rules = super::rules::rules();
    let rule = rules.iter().find(|rule| rule["record"] == query).unwrap_or_else(|| panic!("no rule records {query}"));
    assert!(word(&rule["expr"]).contains("tidemill_loading"), "{query} does not count loading workers");
    assert_eq!(activity["threshold"], "1", "a worker that loads counts whole");
    for key in ["serverAddress", "query", "threshold", "activationThreshold", "ignoreNullValues"] {
        assert!(activity[key].is_string(), "KEDA takes texts only: {key} of {activity}");
    }

    // Prometheus must scrape the port that workers listen on.
    let monitor = document("deploy/kubernetes/monitoring/podmonitor.yaml");
    let labels = at(&deployment, "/spec/template/metadata/labels");
    for (label, value) in at(&monitor, "/spec/selector/matchLabels").as_object().unwrap() {
        assert_eq!(&labels[label], value, "Prometheus selects another {label} than the pods have");
    }
    let job = word(at(&monitor, "/spec/jobLabel"));
    assert_eq!(labels[job], "tidemill", "the rules look for job=\"tidemill\"");
    let port = at(&deployment, "/spec/template/spec/containers/0/ports/0/name");
    assert_eq!(at(&monitor, "/spec/podMetricsEndpoints/0/port"), port);
}
