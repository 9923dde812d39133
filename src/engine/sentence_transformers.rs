//! Reads the files that sentence-transformers keeps beside a model: its modules, its pooling and its prompts.
//!
//! | file | key | here |
//! |---|---|---|
//! | `modules.json` | `type`, `path` | the library's own Transformer, Pooling and optionally Normalize, in any folder; others are refused |
//! | the Pooling's `config.json` | `pooling_mode`, `pooling_mode_*` | `mean` or `cls`; `mean_sqrt_len_tokens` has the same direction as `mean`; others are refused |
//! | | `include_prompt` | `false` is refused if the model has prompts |
//! | `config_sentence_transformers.json` | `prompts`, `default_prompt_name` | put before texts, as the library does |
//! | | `similarity_fn_name` | vectors here have length 1: any other than `cosine` needs a Normalize, `manhattan` is refused |
//! | | `model_type`, `truncate_dim` | another kind of model, or shorter vectors, are refused |

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::EngineError;
use super::folder::{ModelFolder, Pooling};
use super::modules::{MODULES, Module, inside};
use super::request::TextKind;

/// The library's own settings.
pub(super) const LIBRARY: &str = "config_sentence_transformers.json";

/// The pooling's folder in a model that lists no modules.
const POOLING: &str = "1_Pooling";

/// How texts become vectors.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SentenceSettings {
    pub(super) pooling: Pooling,
    pub(super) prompts: PromptPrefixes,
}

/// The prompt before a text of each kind; often empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PromptPrefixes {
    plain: String,
    document: String,
    query: String,
}

impl PromptPrefixes {
    pub(super) fn of(&self, kind: TextKind) -> &str {
        match kind {
            TextKind::Plain => &self.plain,
            TextKind::Document => &self.document,
            TextKind::Query => &self.query,
        }
    }

    pub(super) fn all(&self) -> [&str; 3] {
        [&self.plain, &self.document, &self.query]
    }
}

#[derive(Default, Deserialize)]
struct LibraryConfig {
    model_type: Option<String>,
    prompts: Option<BTreeMap<String, Option<String>>>,
    default_prompt_name: Option<String>,
    similarity_fn_name: Option<String>,
    truncate_dim: Option<Value>,
}

/// Reads how texts become vectors. Without settings it is the mean of their token vectors.
///
/// # Errors
/// If the settings ask for something unsupported.
pub(super) fn read_settings(folder: &mut ModelFolder) -> Result<SentenceSettings, EngineError> {
    let Some(modules) = folder.read_json_at::<Vec<Module>>(MODULES)? else {
        let file = format!("{POOLING}/config.json");
        let settings = folder.read_json_at::<Map<String, Value>>(&file)?;
        let pooling = settings.map_or(Ok(Pooling::Mean), |settings| pooling(&settings));
        let pooling = pooling.map_err(|reason| EngineError::invalid(folder.join_at(&file), reason))?;
        return Ok(SentenceSettings { pooling, prompts: PromptPrefixes::default() });
    };
    let refuse = |reason: String| EngineError::invalid(folder.join_at(MODULES), reason);
    let place = checked(&modules).map_err(refuse)?.path.trim_matches('/').to_owned();
    inside(&place).map_err(refuse)?;
    let normalizes = modules.len() == 3;
    let file = format!("{place}/config.json");
    let Some(settings) = folder.read_json_at::<Map<String, Value>>(&file)? else {
        let reason = format!("says that the pooling is in {place}, and {file} does not exist; fetch that folder too");
        return Err(EngineError::invalid(folder.join_at(MODULES), reason));
    };
    let invalid = |reason: String| EngineError::invalid(folder.join_at(&file), reason);
    let pooling = pooling(&settings).map_err(invalid)?;
    let library: LibraryConfig = folder.peek_json_at(LIBRARY)?.unwrap_or_default();
    let prompts = library.prompts(normalizes).map_err(|reason| EngineError::invalid(folder.join_at(LIBRARY), reason))?;
    if prompts.all().iter().any(|prompt| !prompt.is_empty()) {
        if settings.get("include_prompt") == Some(&Value::Bool(false)) {
            let reason = format!(
                "include_prompt is false, and {LIBRARY} puts prompts before texts; pooling without them is not supported, use a model that includes them"
            );
            return Err(EngineError::invalid(folder.join_at(&file), reason));
        }
        // Only the prompts are hashed. Most models have the file and no prompts, and their revisions must not change.
        folder.count("prompts", prompts.all().join("\0").as_bytes());
    }
    Ok(SentenceSettings { pooling, prompts })
}

/// The Pooling module. Returns an error unless all modules are supported and in the supported order.
fn checked(modules: &[Module]) -> Result<&Module, String> {
    // Leaving out a module would silently give wrong vectors.
    for module in modules {
        if !["Transformer", "Pooling", "Normalize"].contains(&module.name()) {
            let name = module.name();
            return Err(format!(
                "the module {name} is not supported; use a model that has only Transformer, Pooling and Normalize"
            ));
        }
        if !module.kind.starts_with("sentence_transformers.") {
            let kind = &module.kind;
            return Err(format!(
                "the module {kind} is the model's own code, which is not run; use a model with the library's modules"
            ));
        }
    }
    let names: Vec<&str> = modules.iter().map(Module::name).collect();
    match names.as_slice() {
        ["Transformer", "Pooling"] | ["Transformer", "Pooling", "Normalize"] => Ok(&modules[1]),
        _ => Err(format!(
            "lists {}; use a model with a Transformer, a Pooling and optionally a Normalize, in this order",
            if names.is_empty() { "no modules".to_owned() } else { names.join(", ") }
        )),
    }
}

fn pooling(settings: &Map<String, Value>) -> Result<Pooling, String> {
    // In the library's order. If none is set, the library takes the mean.
    const FLAGS: [(&str, &str); 6] = [
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_max_tokens", "max"),
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
        ("pooling_mode_weightedmean_tokens", "weightedmean"),
        ("pooling_mode_lasttoken", "lasttoken"),
    ];
    let modes: Vec<&str> = match settings.get("pooling_mode") {
        None | Some(Value::Null) => {
            let set = FLAGS.iter().filter(|(flag, _)| settings.get(*flag).is_some_and(|set| *set == true));
            set.map(|(_, mode)| *mode).collect()
        }
        Some(Value::String(mode)) => vec![mode],
        Some(Value::Array(modes)) => modes.iter().map(|mode| mode.as_str().unwrap_or("?")).collect(),
        Some(other) => return Err(format!("pooling_mode {other} is not a text; take the file from the model's publisher")),
    };
    match modes.as_slice() {
        // Vectors are normalised to length 1 afterwards, so the divisor of the sum does not matter.
        [] | ["mean" | "mean_sqrt_len_tokens"] => Ok(Pooling::Mean),
        ["cls"] => Ok(Pooling::First),
        modes => {
            Err(format!("pooling_mode {:?} is not supported; use a model that pools by \"mean\" or \"cls\"", modes.join(" + ")))
        }
    }
}

impl LibraryConfig {
    fn prompts(self, normalizes: bool) -> Result<PromptPrefixes, String> {
        if let Some(kind) = self.model_type.as_deref().filter(|kind| *kind != "SentenceTransformer") {
            return Err(format!("model_type {kind:?} is not supported; use a SentenceTransformer"));
        }
        if let Some(dimension) = self.truncate_dim.filter(|dimension| !dimension.is_null()) {
            return Err(format!("truncate_dim {dimension} is not supported; remove it to have complete vectors"));
        }
        match self.similarity_fn_name.as_deref() {
            None | Some("cosine") => {}
            Some("dot" | "euclidean") if normalizes => {}
            Some(function) => {
                return Err(format!(
                    "similarity_fn_name {function:?} needs the lengths of vectors, and all have length 1 here; use a model made for \"cosine\""
                ));
            }
        }
        let prompts = self.prompts.unwrap_or_default();
        let named = |name: &str| prompts.get(name).map(|prompt| prompt.clone().unwrap_or_default());
        let plain = match self.default_prompt_name.as_deref() {
            Some(name) => named(name).ok_or_else(|| {
                format!("default_prompt_name {name:?} is none of the prompts; take the file from the model's publisher")
            })?,
            None => String::new(),
        };
        let document = ["document", "passage", "corpus"].into_iter().find_map(named).unwrap_or_else(|| plain.clone());
        let query = named("query").unwrap_or_else(|| plain.clone());
        Ok(PromptPrefixes { plain, document, query })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pooled(settings: Value) -> Result<Pooling, String> {
        pooling(settings.as_object().unwrap())
    }

    #[test]
    fn pooling_is_read_as_flags_as_a_word_and_as_a_list() {
        assert_eq!(pooled(json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false})), Ok(Pooling::First));
        assert_eq!(pooled(json!({"pooling_mode": "cls", "embedding_dimension": 32})), Ok(Pooling::First));
        assert_eq!(pooled(json!({"pooling_mode": ["mean"]})), Ok(Pooling::Mean));
        assert_eq!(pooled(json!({"pooling_mode_mean_sqrt_len_tokens": true})), Ok(Pooling::Mean), "it has the same direction");
        assert_eq!(pooled(json!({"word_embedding_dimension": 32})), Ok(Pooling::Mean), "the library's default");
        for (settings, named) in [
            (json!({"pooling_mode": "lasttoken"}), "lasttoken"),
            (json!({"pooling_mode": ["cls", "mean"]}), "cls + mean"),
            (json!({"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}), "cls + max"),
            (json!({"pooling_mode": 3}), "3"),
        ] {
            assert!(pooled(settings.clone()).unwrap_err().contains(named), "{settings}");
        }
    }

    #[test]
    fn modules_are_the_librarys_own_and_in_order() {
        let list = |kinds: &[&str]| -> Vec<Module> {
            kinds.iter().map(|kind| Module { kind: (*kind).to_owned(), path: "p".into() }).collect()
        };
        let own = |names: &[&str]| names.iter().map(|name| format!("sentence_transformers.models.{name}")).collect::<Vec<_>>();
        let check = |kinds: &[String]| {
            checked(&list(&kinds.iter().map(String::as_str).collect::<Vec<_>>())).map(|module| module.kind.clone())
        };
        assert!(check(&own(&["Transformer", "Pooling"])).unwrap().ends_with("Pooling"));
        assert!(check(&own(&["Transformer", "Pooling", "Normalize"])).is_ok());
        assert!(check(&own(&["Transformer", "Pooling", "Dense"])).unwrap_err().contains("Dense"));
        assert!(check(&own(&["Transformer", "Normalize"])).unwrap_err().contains("lists Transformer, Normalize"));
        assert!(check(&[]).unwrap_err().contains("no modules"));
        assert!(
            check(&["custom_st.Transformer".into(), own(&["Pooling"]).remove(0)]).unwrap_err().contains("custom_st.Transformer")
        );
    }

    #[test]
    fn prompts_are_those_that_the_library_would_take() {
        let prompts = |settings: Value| serde_json::from_value::<LibraryConfig>(settings).unwrap().prompts(false);
        let all = |settings: Value| prompts(settings).unwrap().all().map(str::to_owned);
        assert_eq!(all(json!({})), ["", "", ""]);
        let e5 = json!({"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "passage"});
        assert_eq!(all(e5), ["passage: ", "passage: ", "query: "]);
        assert_eq!(all(json!({"prompts": {"query": "q ", "document": ""}, "default_prompt_name": null})), ["", "", "q "]);
        assert_eq!(all(json!({"prompts": {"x": "x "}, "default_prompt_name": "x"})), ["x ", "x ", "x "]);
        assert!(prompts(json!({"default_prompt_name": "x"})).unwrap_err().contains("default_prompt_name \"x\""));
        assert!(prompts(json!({"similarity_fn_name": "dot"})).unwrap_err().contains("\"dot\""));
        assert!(prompts(json!({"truncate_dim": 64})).unwrap_err().contains("truncate_dim 64"));
        assert!(prompts(json!({"model_type": "SparseEncoder"})).unwrap_err().contains("SparseEncoder"));
        let normalized: LibraryConfig = serde_json::from_value(json!({"similarity_fn_name": "dot"})).unwrap();
        assert!(normalized.prompts(true).is_ok(), "for vectors of length 1 the product is the cosine");
    }
}
