//! The key `grounding` of tasks that write text, and the judge that it configures.
//!
//! A claim may come from the text of the document, from the fields of the document that the prompt reads, and from what the tasks
//! state whose outputs the prompt reads. The words and names of the prompt may be used. `claims.rs` has the rules.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::TemplateContext;
use super::claims::Sources;
use crate::did_you_mean::suggestion;
use crate::document::Document;
use crate::engine::Prompt;
use crate::outcome::UnsupportedClaim;
use crate::template::root;

/// Most claims that a model is told about when it is asked again.
const MOST_REASONS: usize = 12;

/// Whether and how the claims of a written text are judged.
#[derive(Debug, Clone, PartialEq)]
pub enum Grounding {
    /// The text is kept as the model wrote it.
    Off,
    /// Everything is judged, by these rules.
    On(GroundingRules),
}

/// Rules by which the claims of a written text are judged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroundingRules {
    /// The share of the words of a sentence that its sources may lack, from 0 to 1. Each kind of task has a default.
    pub novel_words: Option<f64>,
    /// Tasks whose labels and other judgements may be stated as facts.
    pub facts: Vec<String>,
}

/// The key of a task that has none.
pub(super) static DEFAULT: Grounding = Grounding::On(GroundingRules { novel_words: None, facts: Vec::new() });

impl Default for Grounding {
    fn default() -> Self {
        DEFAULT.clone()
    }
}

impl Grounding {
    /// Problems of the key, in a task whose prompt reads these names.
    pub(super) fn problems(&self, reads: &[String]) -> Vec<String> {
        let Self::On(rules) = self else { return Vec::new() };
        let mut problems = Vec::new();
        if let Some(share) = rules.novel_words.filter(|share| !(0.0..=1.0).contains(share)) {
            problems.push(format!("has `grounding.novel_words: {share}`: write a number from 0 to 1"));
        }
        for name in rules.facts.iter().filter(|name| !reads.iter().any(|path| root(path) == **name)) {
            let near = suggestion(name, reads.iter().map(|path| root(path)));
            problems.push(format!("has `grounding.facts` with `{name}`, a task that its prompt does not read; {near}"));
        }
        problems
    }

    /// The judge of a task, or none where the key is `off`.
    pub(super) fn judge(&self, default_novel_words: f64, reads: Vec<String>, words: String) -> Option<ClaimJudge> {
        let Self::On(rules) = self else { return None };
        let novel_words = rules.novel_words.unwrap_or(default_novel_words);
        Some(ClaimJudge { novel_words, facts: rules.facts.clone(), reads, words })
    }
}

/// Judges what a task writes.
#[derive(Debug)]
pub(super) struct ClaimJudge {
    pub novel_words: f64,
    facts: Vec<String>,
    /// The names that the prompt reads, as dotted paths.
    reads: Vec<String>,
    /// Texts whose words and names may be used: the prompt, and a fallback.
    words: String,
}

impl ClaimJudge {
    /// Everything that decides the judgement besides the text of the document.
    pub(super) fn signature(&self) -> Value {
        json!([self.novel_words, self.facts])
    }

    /// What a text may state that is written about `document`.
    pub(super) fn sources(&self, document: &Document, upstream: &TemplateContext) -> Sources {
        let mut sources = Sources::default();
        sources.add_text(&document.text);
        self.values(document, upstream).iter().for_each(|value| sources.add_value(value));
        sources.add_words(&self.words);
        sources
    }

    /// The values besides the text of the document that claims may come from.
    pub(super) fn values(&self, document: &Document, upstream: &TemplateContext) -> Vec<Value> {
        let mut found = Vec::new();
        let mut tasks: Vec<&str> = Vec::new();
        for path in &self.reads {
            match path.strip_prefix("document") {
                Some(rest) if rest.is_empty() || rest.starts_with('.') => found.extend(field(document, rest)),
                _ if tasks.contains(&root(path)) => {}
                _ => tasks.push(root(path)),
            }
        }
        for name in tasks {
            let Some(statements) = upstream.statements(name) else { continue };
            found.extend(statements.facts.iter().cloned());
            if self.facts.iter().any(|fact| fact == name) {
                found.extend(statements.judgements.iter().cloned());
            }
        }
        found
    }
}

/// The value of the document at a dotted path after `document`, except its text.
fn field(document: &Document, path: &str) -> Option<Value> {
    let mut steps = path.split('.').skip(1);
    let all = |fields: &Map<String, Value>| Value::Object(fields.clone());
    let mut value = match steps.next() {
        Some("id") => return Some(json!(document.id)),
        Some("fields") => all(&document.fields),
        Some("metadata") => all(&document.metadata),
        None => json!({ "fields": document.fields, "metadata": document.metadata }),
        Some(_) => return None,
    };
    for step in steps {
        value = value.get_mut(step)?.take();
    }
    Some(value)
}

/// The prompt with what was wrong with the last answer, at the end of the last message.
pub(super) fn with_reasons(mut prompt: Prompt, claims: &[UnsupportedClaim]) -> Prompt {
    let mut said: Vec<&str> = Vec::new();
    for claim in claims {
        if !said.contains(&claim.message.as_str()) {
            said.push(&claim.message);
        }
    }
    said.truncate(MOST_REASONS);
    if let Some(last) = prompt.messages.last_mut() {
        let reasons = said.join("\n- ");
        let content = format!(
            "{}\n\nAn earlier answer was refused:\n- {reasons}\nAnswer again, and say only what the source says.",
            last.content
        );
        last.content = content.into();
    }
    prompt
}

impl Serialize for Grounding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::On(rules) => rules.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Grounding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OffOrRules;

        impl<'de> Visitor<'de> for OffOrRules {
            type Value = Grounding;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`off`, or a mapping with `novel_words` and `facts`")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Grounding, E> {
                match word {
                    "off" => Ok(Grounding::Off),
                    _ => Err(E::custom(format!("`{word}` is no kind of grounding: write `off`, or `novel_words` and `facts`"))),
                }
            }

            // Older YAML reads `off` as false.
            fn visit_bool<E: Error>(self, is_on: bool) -> Result<Grounding, E> {
                Ok(if is_on { Grounding::default() } else { Grounding::Off })
            }

            fn visit_map<A: MapAccess<'de>>(self, rules: A) -> Result<Grounding, A::Error> {
                GroundingRules::deserialize(MapAccessDeserializer::new(rules)).map(Grounding::On)
            }
        }

        deserializer.deserialize_any(OffOrRules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_off_or_has_rules() {
        let read = |yaml: &str| crate::yaml::read::<Grounding>(yaml);
        assert_eq!(read("off").unwrap(), Grounding::Off);
        let rules = GroundingRules { novel_words: Some(0.1), facts: vec!["topic".into()] };
        assert_eq!(read("{ novel_words: 0.1, facts: [topic] }").unwrap(), Grounding::On(rules));
        assert!(read("strict").unwrap_err().message.contains("write `off`"));
        assert!(read("{ novel: 0.1 }").is_err());
    }

    #[test]
    fn rules_that_cannot_hold_are_refused() {
        let rules = GroundingRules { novel_words: Some(1.5), facts: vec!["topik".into()] };
        let problems = Grounding::On(rules).problems(&["topic.label".to_owned(), "document.text".to_owned()]);
        assert!(problems[0].contains("from 0 to 1"), "{problems:?}");
        assert!(problems[1].contains("did you mean `topic`?"), "{problems:?}");
        assert_eq!(Grounding::Off.problems(&[]), [""; 0]);
    }

    #[test]
    fn fields_of_a_document_are_found_by_path() {
        let fields = json!({"brand": {"name": "Hazel"}}).as_object().cloned().unwrap_or_default();
        let document = Document { id: "1".into(), version: 1, text: "t".into(), metadata: Map::new(), fields };
        assert_eq!(field(&document, ".fields.brand.name"), Some(json!("Hazel")));
        assert_eq!(field(&document, ".fields.size"), None);
        assert_eq!(field(&document, ".text"), None);
        assert_eq!(field(&document, ".metadata"), Some(json!({})));
    }
}
