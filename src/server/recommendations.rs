//! `GET /v1/recommendations?pipeline=&document=&user=&limit=&filter=`: documents to show next, each with its reasons.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::{Extension, Json};

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemCode, ProblemDetails};
use crate::did_you_mean::suggestion;
use crate::recommend::{MAX_LIMIT, RecommendError, RecommendRequest, RecommendResponse};
use crate::search::FilterClause;

/// The keys of a query.
const KEYS: [&str; 5] = ["pipeline", "document", "user", "limit", "filter"];

/// Documents like another one, for a user, or popular ones
///
/// With `document`, those like it; with `user`, those that this user may like; with both, those like the document that the user has
/// not seen. With neither, or for a user of whom nothing is known, those that many people liked of late.
#[utoipa::path(get, path = "/v1/recommendations", operation_id = "recommend", tag = "recommendations", security(("token" = ["read"])),
    params(("pipeline" = Option<String>, Query, description = "The pipeline; may be left out where there is one"),
           ("document" = Option<String>, Query, description = "Documents like this one", min_length = 1, max_length = 1024),
           ("user" = Option<String>, Query, description = "For this user, who is shown nothing twice", min_length = 1, max_length = 1024),
           ("limit" = Option<usize>, Query, description = "Most documents; 10 unless told", minimum = 1, maximum = 100),
           ("filter" = Option<Vec<String>>, Query, description = "What every document must fulfil, as in `topic=Sports` or `facts.price<50`; may be given more than once")),
    responses((status = 200, description = "The documents, in the order in which to show them", body = RecommendResponse),
              (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn list(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<RecommendResponse>, ApiError> {
    let Query(parameters) = parameters?;
    let (wish, conditions) = wish(parameters)?;
    let tenant = caller.tenant.as_ref();
    let filter = services.searcher.visible_to(tenant).filter(wish.pipeline.as_deref(), &conditions).await?;
    Ok(Json(services.recommender.visible_to(tenant).recommend(&RecommendRequest { filter, ..wish }).await?))
}

fn wish(parameters: Vec<(String, String)>) -> Result<(RecommendRequest, Vec<FilterClause>), ApiError> {
    let (mut wish, mut conditions) = (RecommendRequest::default(), Vec::new());
    for (key, value) in parameters {
        let place = match key.as_str() {
            "pipeline" => &mut wish.pipeline,
            "document" => &mut wish.document,
            "user" => &mut wish.user,
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                let limit = limit.ok_or_else(|| ApiError::invalid(format!("`limit` is no number from 1 to {MAX_LIMIT}")))?;
                wish.limit = Some(limit);
                continue;
            }
            "filter" => {
                conditions.push(FilterClause::line(&value)?);
                continue;
            }
            _ => return Err(ApiError::invalid(format!("unknown parameter `{key}`; {}", suggestion(&key, KEYS)))),
        };
        if place.replace(value).is_some() {
            return Err(ApiError::invalid(format!("`{key}` stands twice; give it once")));
        }
    }
    Ok((wish, conditions))
}

impl From<RecommendError> for ApiError {
    fn from(error: RecommendError) -> Self {
        let message = error.to_string();
        match error {
            RecommendError::Invalid(_) => Self::invalid(message),
            RecommendError::Unknown { .. } => Self::new(ProblemCode::UnknownDocument, message),
            RecommendError::Unavailable(transient) => Self::unavailable(&transient),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<(RecommendRequest, Vec<FilterClause>), String> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        wish(pairs.collect()).map_err(|error| error.message)
    }

    #[test]
    fn a_wish_is_read_from_its_parameters() {
        let (wish, conditions) =
            read(&[("user", "u"), ("filter", "topic=a"), ("limit", "3"), ("filter", "price<50"), ("pipeline", "p")]).unwrap();
        assert_eq!((wish.user.as_deref(), wish.pipeline.as_deref(), wish.limit), (Some("u"), Some("p"), Some(3)));
        assert_eq!(conditions, [FilterClause::line("topic=a").unwrap(), FilterClause::line("price<50").unwrap()]);
        assert!(read(&[]).unwrap().0.document.is_none(), "whoever says nothing gets what is popular");
    }

    #[test]
    fn what_is_no_wish_is_said_in_a_sentence() {
        for (pairs, says) in [
            (vec![("usr", "u")], "unknown parameter `usr`; did you mean `user`?"),
            (vec![("user", "u"), ("user", "v")], "`user` stands twice"),
            (vec![("limit", "0")], "`limit` is no number from 1 to 100"),
            (vec![("filter", "topic")], "is not of the form"),
        ] {
            let error = read(&pairs).unwrap_err();
            assert!(error.contains(says), "{pairs:?}: {error}");
        }
    }
}
