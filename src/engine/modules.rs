//! `modules.json`: the list of modules of a sentence-transformers model, and where in its folder the model itself lies.

use std::fs;
use std::path::{Component, Path};

use serde::Deserialize;

use super::error::EngineError;

/// The list of modules.
pub(super) const MODULES: &str = "modules.json";

/// One step from text to vector, as sentence-transformers lists it.
#[derive(Deserialize)]
pub(super) struct Module {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) path: String,
}

impl Module {
    pub(super) fn name(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or_default()
    }
}

/// The model's own folder inside the folder at `path`: empty, or a name that ends with a slash.
///
/// # Errors
/// If the list of modules cannot be read, or leads out of the folder.
pub(super) fn transformer_folder(path: &Path) -> Result<String, EngineError> {
    let file = path.join(MODULES);
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(source) => return Err(EngineError::Unreadable { path: file, source }),
    };
    let modules: Vec<Module> = serde_json::from_slice(&bytes).map_err(|e| {
        let reason = format!("cannot be read as a model's {MODULES}: {e}; take the file from the model's publisher");
        EngineError::invalid(&file, reason)
    })?;
    let place = modules.iter().find(|module| module.name() == "Transformer").map_or("", |module| module.path.trim_matches('/'));
    if place.is_empty() || place == "." {
        return Ok(String::new());
    }
    inside(place).map_err(|reason| EngineError::invalid(&file, reason))?;
    if !path.join(place).is_dir() {
        let reason = format!("says that the model is in {place}, which does not exist; fetch that folder too");
        return Err(EngineError::invalid(&file, reason));
    }
    Ok(format!("{place}/"))
}

/// Whether a path that the model's publisher chose stays inside the folder.
pub(super) fn inside(place: &str) -> Result<(), String> {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    match !place.is_empty() && Path::new(place).components().all(plain) && !place.contains('\\') {
        true => Ok(()),
        false => {
            Err(format!("the path {place:?} does not lead to a folder of the model; take the file from the model's publisher"))
        }
    }
}
