use std::fs;

use serde_json::json;

use super::*;

fn parse(text: &str) -> Result<PromptFile, String> {
    PromptFile::parse(Path::new("prompts/p.md"), text)
}

#[track_caller]
fn refused(text: &str, says: &str) {
    match parse(text) {
        Ok(_) => panic!("an invalid prompt was accepted; expected: {says}\n{text}"),
        Err(error) => assert!(error.contains(says), "expected to read `{says}` in: {error}"),
    }
}

#[test]
fn a_whole_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("prompts")).unwrap();
    let schema = json!({"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "null"}}});
    fs::write(folder.path().join("schema.json"), schema.to_string()).unwrap();
    let path = folder.path().join("prompts/facts.md");
    let text = "---\r\nname: facts\r\nsystem: You read.\nmodel: { max_tokens: 96, temperature: 0.5, top_p: 0.9, top_k: 4, seed: 7, stop: [END] }
schema: ../schema.json\n---\n\nfacts: {{ document.text }}\n---\nand more\n";
    fs::write(&path, text).unwrap();
    let prompt = PromptFile::read(&path).unwrap();
    assert_eq!((&*prompt.name, prompt.system.as_deref()), ("facts", Some("You read.")));
    assert_eq!(prompt.body, "facts: {{ document.text }}\n---\nand more");
    assert_eq!(prompt.schema.as_ref().unwrap().text(), schema.to_string(), "fields keep the order of the file");
    assert_eq!(prompt.parameters.max_tokens, Some(96));
    assert_eq!(prompt.parameters.sampling(), Sampling { temperature: 0.5, top_p: 0.9, top_k: 4, seed: 7 });
    assert_eq!(prompt.parameters.stop, ["END"]);
    assert_eq!(prompt.template().unwrap().variables(), ["document.text"]);
}

#[test]
fn what_is_not_said_is_greedy_and_free() {
    let prompt = parse("\u{feff}---\nname: seo\nschema: { type: object }\n---\nhello").unwrap();
    assert_eq!((prompt.system, prompt.parameters.sampling()), (None, Sampling::default()));
    assert_eq!(prompt.schema.unwrap().text(), r#"{"type":"object"}"#);
}

#[test]
fn faults_are_named_with_file_and_line() {
    refused("facts: {{ document.text }}", "prompts/p.md:1: a prompt file begins with a line `---`");
    refused("", "prompts/p.md:1: a prompt file begins with");
    refused("---\nname: a\nfacts", "prompts/p.md:1: the front matter has no end");
    refused("---\nname: a\nmodle: {}\n---\nx", "prompts/p.md:3:1: unknown key `modle`; did you mean `model`?");
    refused(
        "---\nname: a\nmodel:\n  max_token: 3\n---\nx",
        "prompts/p.md:4:3: unknown key `max_token`; did you mean `max_tokens`?",
    );
    refused("---\nsystem: a\n---\nx", "the key `name` is missing");
    refused("---\nname: ' '\n---\nx", "the prompt's `name` is empty");
    refused("---\nname: a\nmodel: { max_tokens: many }\n---\nx", "prompts/p.md:3:");
    refused("---\nname: a\n---\n\n  \n", "the prompt has no message");
    refused("---\nname: a\n---\n\n\none\n{{ x", "prompts/p.md:7: the template is invalid");
    refused("---\nname: a\n---\n{{ x | shout }}", "prompts/p.md:4: the template is invalid: unknown filter `shout`");
    refused("---\nname: a\nschema: nowhere.json\n---\nx", "prompts/p.md:3: prompts/nowhere.json: no such file");
    refused("---\nname: a\nschema: { type: string }\n---\nx", "prompts/p.md:3: the schema must be of `type: object`");
    refused("---\nname: a\nschema: 3\n---\nx", "prompts/p.md:3:1: invalid type: integer `3`, expected the path of a JSON Schema");
    let missing = PromptFile::read(Path::new("/nowhere/p.md")).unwrap_err();
    assert_eq!(missing, "/nowhere/p.md: no such file");
}

#[test]
fn parameters_have_ranges() {
    for (parameters, says) in [
        ("max_tokens: 0", "`max_tokens` is 0"),
        ("temperature: -1", "`temperature` is out of range"),
        ("temperature: .nan", "`temperature` is out of range"),
        ("top_p: 0", "`top_p` is out of range"),
        ("top_p: 1.5", "`top_p` is out of range"),
        ("stop: ['']", "`stop` has an empty text"),
    ] {
        refused(&format!("---\nname: a\nmodel: {{ {parameters} }}\n---\nx"), &format!("prompts/p.md:3: {says}"));
    }
}

#[test]
fn a_schema_that_is_no_json_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("s.json"), "{\n  \"type\": object\n}").unwrap();
    let error = SchemaSource::File("s.json".into()).load(folder.path()).unwrap_err();
    assert!(error.contains("s.json:2:11: the schema is not valid JSON: expected value"), "{error}");
}

#[test]
fn a_prompt_and_its_task_do_not_both_have_a_schema() {
    let inline = SchemaSource::Inline(json!({"type": "object"}));
    let with = parse("---\nname: a\nschema: { type: object }\n---\nx").unwrap();
    assert!(with.clone().with_schema(Some(&inline), Path::new("")).unwrap_err().contains("remove one of them"));
    assert_eq!(with.clone().with_schema(None, Path::new("")).unwrap(), with);
    let without = parse("---\nname: a\n---\nx").unwrap().with_schema(Some(&inline), Path::new("")).unwrap();
    assert_eq!(without.schema, with.schema);
}
