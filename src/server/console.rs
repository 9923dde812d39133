//! The console: web pages that use the API. The files are part of the binary and load nothing from elsewhere.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::error::{ApiError, ProblemCode};

/// The name, media type and content of each file.
const FILES: [(&str, &str, &str); 16] = [
    ("index.html", "text/html; charset=utf-8", include_str!("console/index.html")),
    ("style.css", "text/css; charset=utf-8", include_str!("console/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("console/icon.svg")),
    ("app.js", SCRIPT, include_str!("console/app.js")),
    ("dom.js", SCRIPT, include_str!("console/dom.js")),
    ("translations.js", SCRIPT, include_str!("console/translations.js")),
    ("overview.js", SCRIPT, include_str!("console/overview.js")),
    ("search.js", SCRIPT, include_str!("console/search.js")),
    ("recommendations.js", SCRIPT, include_str!("console/recommendations.js")),
    ("document.js", SCRIPT, include_str!("console/document.js")),
    ("evidence.js", SCRIPT, include_str!("console/evidence.js")),
    ("jobs.js", SCRIPT, include_str!("console/jobs.js")),
    ("leads.js", SCRIPT, include_str!("console/leads.js")),
    ("dead_letters.js", SCRIPT, include_str!("console/dead_letters.js")),
    ("pipelines.js", SCRIPT, include_str!("console/pipelines.js")),
    ("copy.js", SCRIPT, include_str!("console/copy.js")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The entity tag of all files, by which browsers know whether a file has changed.
static TAG: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = blake3::Hasher::new();
    for (_, _, content) in FILES {
        hasher.update(content.as_bytes());
    }
    format!("\"{}\"", &hasher.finalize().to_hex()[..16])
});

/// The page that loads the others.
pub async fn index(headers: HeaderMap) -> Result<Response, ApiError> {
    serve("index.html", &headers)
}

/// A file of the console.
pub async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    serve(&name, &headers)
}

fn serve(name: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let Some((_, kind, content)) = FILES.iter().find(|(known, _, _)| *known == name) else {
        return Err(ApiError::new(ProblemCode::NotFound, format!("the console has no file {name:?}")));
    };
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == TAG.as_bytes());
    let fresh = [(header::ETAG, TAG.as_str()), (header::CACHE_CONTROL, "no-cache")];
    Ok(match known {
        true => (StatusCode::NOT_MODIFIED, fresh).into_response(),
        false => (fresh, [(header::CONTENT_TYPE, *kind)], *content).into_response(),
    })
}
