//! `GET /v1/recommendations?pipeline=&document=&user=&limit=&filter=`: documents to show next, each with the reasons.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemCode};
use super::query::{ApiQuery, QueryParameters};
use crate::recommend::{RecommendError, RecommendRequest, RecommendResponse};
use crate::search::FilterClause;

/// The query parameters.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RecommendParameters {
    /// The pipeline; may be omitted if there is only one
    pipeline: Option<String>,
    /// Recommend documents that are similar to this one
    #[param(min_length = 1, max_length = 1024)]
    document: Option<String>,
    /// Recommend documents for this user, without those that the user has seen
    #[param(min_length = 1, max_length = 1024)]
    user: Option<String>,
    /// The maximum number of documents; the default is 10
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    /// A condition that every document must meet, such as `topic=Sports` or `facts.price<50`; may be given more than once
    #[serde(default)]
    filter: Vec<String>,
}

impl QueryParameters for RecommendParameters {}

/// Recommend documents for a document, for a user, or popular ones
///
/// With `document`, similar documents; with `user`, documents that this user may like; with both, similar documents that the user
/// has not seen. With neither, and for a user who is not known, documents that many people liked recently.
#[utoipa::path(get, path = "/v1/recommendations", operation_id = "recommend", tag = "recommendations",
    security(("token" = ["read"])),
    params(RecommendParameters),
    responses((status = 200, description = "The documents, the best first", body = RecommendResponse)))]
pub async fn list(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    ApiQuery(parameters): ApiQuery<RecommendParameters>,
) -> Result<Json<RecommendResponse>, ApiError> {
    let RecommendParameters { pipeline, document, user, limit, filter } = parameters;
    let clauses = filter.iter().map(|line| FilterClause::line(line)).collect::<Result<Vec<_>, _>>()?;
    let tenant = caller.tenant.as_ref();
    let filter = services.searcher.visible_to(tenant).filter(pipeline.as_deref(), &clauses).await?;
    let request = RecommendRequest { pipeline, document, user, limit, filter };
    Ok(Json(services.recommender.visible_to(tenant).recommend(&request).await?))
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
    use super::super::query::read;
    use super::*;
    use crate::recommend::MAX_LIMIT;

    fn parameters(pairs: &[(&str, &str)]) -> Result<RecommendParameters, String> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        read(pairs.collect()).map_err(|error| error.message)
    }

    #[test]
    fn a_wish_is_read_from_its_parameters() {
        let read = parameters(&[("user", "u"), ("filter", "topic=a"), ("limit", "3"), ("filter", "price<50"), ("pipeline", "p")]);
        let read = read.unwrap();
        assert_eq!((read.user.as_deref(), read.pipeline.as_deref(), read.limit), (Some("u"), Some("p"), Some(3)));
        assert_eq!(read.filter, ["topic=a", "price<50"]);
        assert!(parameters(&[]).unwrap().document.is_none(), "without parameters, popular documents are recommended");
    }

    #[test]
    fn what_is_no_wish_is_said_in_a_sentence() {
        for (pairs, says) in [
            (vec![("usr", "u")], "unknown parameter `usr`; did you mean `user`?"),
            (vec![("user", "u"), ("user", "v")], "`user` is given twice"),
            (vec![("limit", "0")], "give a number from 1 to 100"),
        ] {
            let error = parameters(&pairs).unwrap_err();
            assert!(error.contains(says), "{pairs:?}: {error}");
        }
        assert!(ApiError::from(FilterClause::line("topic").unwrap_err()).message.contains("is not of the form"));
    }

    #[test]
    fn the_described_limit_is_the_one_that_holds() {
        assert!(parameters(&[("limit", &MAX_LIMIT.to_string())]).is_ok());
        assert!(parameters(&[("limit", &(MAX_LIMIT + 1).to_string())]).is_err());
    }
}
