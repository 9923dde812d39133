//! `GET /openapi.json`: the API as programs read it, from the handlers and the types that they take and give.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::error::{ProblemCode, ProblemDetails};
use super::{
    answer, copy, dead_letters, documents, health, jobs, leads, metrics, parked_events, pipelines, recommendations, search,
};

/// The description. A test compares it with the router, line by line.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidemill",
        description = "Search in what pipelines have made and recommendations of it, copy for people to decide on, jobs beside the streams, and what could not be done.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        health::alive, health::ready, metrics::render, describe, search::answer, answer::answer, documents::explain,
        jobs::submit, jobs::list, jobs::show, jobs::cancel, jobs::retry,
        pipelines::list, dead_letters::list, dead_letters::show, dead_letters::replay, parked_events::list, recommendations::list,
        copy::list, copy::show, copy::approve, copy::reject, copy::edit, copy::export, copy::sitemap,
        leads::list, leads::export, leads::show, leads::account
    ),
    components(schemas(ProblemDetails, ProblemCode)),
    modifiers(&Additions)
)]
struct Description;

struct Additions;

impl Modify for Additions {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token of `tidemill tokens create`, or the one of `server.token`."))
            .build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        let codes = ProblemCode::ALL.map(|code| {
            let (word, status, title) = code.meaning();
            format!("| `{word}` | {} | {title} |\n", status.as_u16())
        });
        let lines = "Every refusal is a `Problem` as `application/problem+json`.\n\n| code | status | |\n|---|---|---|\n";
        let described = description.info.description.get_or_insert_default();
        described.push_str(&format!("\n\n{lines}{}", codes.concat()));
    }
}

/// The description of the API as JSON.
pub static TEXT: LazyLock<String> =
    LazyLock::new(|| Description::openapi().to_pretty_json().expect("a description of texts and numbers is JSON"));

/// This description
///
/// It is the same wherever this version runs, and open to all.
#[utoipa::path(get, path = "/openapi.json", tag = "service",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn describe() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}
