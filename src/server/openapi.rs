//! `GET /openapi.json`: the description of the API, derived from the handlers and their types.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::error::{ProblemCode, ProblemDetails};
use super::{
    answer, copy, dead_letters, documents, health, jobs, leads, metrics, parked_events, pipelines, recommendations, search,
};

/// The description. A test compares its operations with the router.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidemill",
        description = "Search, recommendations, review of generated copy, leads, jobs and dead letters of pipelines.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        health::alive, health::ready, metrics::render, describe, search::search, answer::answer, documents::explain,
        jobs::submit, jobs::list, jobs::show, jobs::cancel, jobs::retry,
        pipelines::list, dead_letters::list, dead_letters::show, dead_letters::replay, parked_events::list, recommendations::list,
        copy::list, copy::show, copy::approve, copy::reject, copy::edit, copy::export, copy::sitemap,
        leads::list, leads::export, leads::show, leads::account
    ),
    components(schemas(ProblemDetails, ProblemCode)),
    modifiers(&TokenScheme, &ProblemResponse)
)]
struct Description;

/// Adds the security scheme.
struct TokenScheme;

impl Modify for TokenScheme {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token from `tidemill tokens create`, or the value of `server.token`."))
            .build();
        description.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// Adds the error response to every operation, and the table of its codes.
struct ProblemResponse;

impl Modify for ProblemResponse {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        for item in description.paths.paths.values_mut() {
            for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
                operation.responses.responses.insert("default".to_owned(), ProblemDetails::described().into());
            }
        }
        let codes = ProblemCode::ALL.map(|code| {
            let (word, status, title) = code.meaning();
            format!("| `{word}` | {} | {title} |\n", status.as_u16())
        });
        let table =
            "Every error response is a `Problem` as `application/problem+json`.\n\n| code | status | meaning |\n|---|---|---|\n";
        description.info.description.get_or_insert_default().push_str(&format!("\n\n{table}{}", codes.concat()));
    }
}

/// The description as JSON.
pub static TEXT: LazyLock<String> =
    LazyLock::new(|| Description::openapi().to_pretty_json().expect("a description of texts and numbers is JSON"));

/// This description
///
/// It depends only on the version of the service, and needs no token.
#[utoipa::path(get, path = "/openapi.json", tag = "service",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
pub async fn describe() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}
