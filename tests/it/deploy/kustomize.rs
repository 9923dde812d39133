//! Builds manifests from kustomizations as far as ours need: resources, files in configuration maps, and JSON patches. Anything
//! else in one is an error, so that the checks leave nothing out silently.

use serde_json::{Value, json};

use super::{at, document, documents, list, text, word};

/// The manifests of a folder as a cluster would get them, but names of configuration maps lack the hash of their content.
pub fn rendered(folder: &str) -> Vec<Value> {
    let place = format!("{folder}/kustomization.yaml");
    let kustomization = document(&place);
    let mut manifests = Vec::new();
    for (key, value) in kustomization.as_object().unwrap() {
        match key.as_str() {
            "apiVersion" | "kind" | "namespace" | "patches" => {}
            "resources" => manifests.extend(list(value).iter().flat_map(|resource| resources(folder, word(resource)))),
            "configMapGenerator" => manifests.extend(list(value).iter().map(|map| configuration_map(folder, map))),
            other => panic!("{place}: this check does not know `{other}`; teach it"),
        }
    }
    for patch in list(&kustomization["patches"]) {
        let (kind, name) = (at(patch, "/target/kind"), at(patch, "/target/name"));
        let fitting = |manifest: &&mut Value| manifest["kind"] == *kind && manifest["metadata"]["name"] == *name;
        let manifest =
            manifests.iter_mut().find(fitting).unwrap_or_else(|| panic!("{place} patches {kind} {name}, which is not there"));
        let [operations] = documents(&place, word(at(patch, "/patch"))).try_into().unwrap();
        for operation in list(&operations) {
            apply(manifest, operation).unwrap_or_else(|why| panic!("{place}: {operation} {why}"));
        }
    }
    if let Some(namespace) = kustomization["namespace"].as_str() {
        for manifest in manifests.iter_mut().filter(|manifest| manifest["kind"] != "Namespace") {
            manifest["metadata"]["namespace"] = json!(namespace);
        }
    }
    manifests
}

fn resources(folder: &str, resource: &str) -> Vec<Value> {
    if resource.ends_with(".yaml") {
        let place = format!("{folder}/{resource}");
        return documents(&place, &text(&place));
    }
    let sibling = resource.strip_prefix("../").expect("a resource is a file, or a folder beside this one");
    let (parent, _) = folder.rsplit_once('/').unwrap();
    rendered(&format!("{parent}/{sibling}"))
}

fn configuration_map(folder: &str, map: &Value) -> Value {
    let files = list(at(map, "/files")).iter().map(word);
    let data: serde_json::Map<_, _> = files.map(|file| (file.to_owned(), json!(text(&format!("{folder}/{file}"))))).collect();
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": at(map, "/name") }, "data": data })
}

/// One operation of RFC 6902.
fn apply(manifest: &mut Value, operation: &Value) -> Result<(), String> {
    let path = word(at(operation, "/path"));
    let (parent, key) = path.rsplit_once('/').ok_or("has no path")?;
    let key = key.replace("~1", "/").replace("~0", "~");
    let parent = manifest.pointer_mut(parent).and_then(Value::as_object_mut).ok_or("changes something that is not there")?;
    let there = parent.contains_key(&key);
    match word(at(operation, "/op")) {
        "add" => drop(parent.insert(key, at(operation, "/value").clone())),
        "replace" if there => drop(parent.insert(key, at(operation, "/value").clone())),
        "remove" if there => drop(parent.remove(&key)),
        "replace" | "remove" => return Err("changes something that is not there".into()),
        other => return Err(format!("is `{other}`, which this check does not know; teach it")),
    }
    Ok(())
}
