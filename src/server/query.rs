//! Query parameters, read and checked by the description of the endpoint: a parameter that the description lacks is unknown, and a
//! number has the bounds that the description gives.
//!
//! | the query has | the answer is |
//! |---|---|
//! | a parameter that the endpoint does not have | 400, with the nearest known name |
//! | a parameter twice | 400, unless the parameter is a list |
//! | a text for a number, or a number out of bounds | 400, with the bounds |

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::error::ApiError;
use crate::did_you_mean::suggestion;

/// The query parameters of an endpoint.
pub trait QueryParameters: IntoParams + DeserializeOwned {
    /// Whether an empty parameter counts as absent. A form sends its empty fields so.
    const EMPTY_IS_ABSENT: bool = false;
}

/// Extracts query parameters from a request.
#[derive(Debug)]
pub struct ApiQuery<T>(pub T);

impl<S: Send + Sync, T: QueryParameters> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::from_request_parts(parts, state).await?;
        read(pairs).map(Self)
    }
}

/// Reads parameters from names and values.
pub fn read<T: QueryParameters>(pairs: Vec<(String, String)>) -> Result<T, ApiError> {
    let known = T::into_params(|| Some(ParameterIn::Query));
    let mut values = Map::new();
    for (name, text) in pairs {
        let parameter = known.iter().find(|parameter| parameter.name == name).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|parameter| parameter.name.as_str()).collect();
            ApiError::invalid(format!("unknown parameter `{name}`; {}", suggestion(&name, names)))
        })?;
        if T::EMPTY_IS_ABSENT && text.is_empty() {
            continue;
        }
        let value = value(parameter, text)?;
        match values.get_mut(&name) {
            None => drop(values.insert(name, value)),
            Some(Value::Array(items)) => items.extend(value.as_array().into_iter().flatten().cloned()),
            Some(_) => return Err(ApiError::invalid(format!("the parameter `{name}` is given twice; give it once"))),
        }
    }
    serde_json::from_value(Value::Object(values)).map_err(|error| ApiError::invalid(format!("the query cannot be read: {error}")))
}

/// The value of a parameter. A list gets one item at a time.
fn value(parameter: &Parameter, text: String) -> Result<Value, ApiError> {
    let schema = serde_json::to_value(&parameter.schema).unwrap_or_default();
    let (least, most) = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
    let number = match schema["type"].as_str() {
        Some("array") => return Ok(Value::Array(vec![text.into()])),
        Some("integer") => {
            let is_within = |number: &i64| least.is_none_or(|least| *number >= least) && most.is_none_or(|most| *number <= most);
            text.parse().ok().filter(is_within).map(Value::from)
        }
        // JSON has no infinite number, and neither has a parameter.
        Some("number") => text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number),
        _ => return Ok(text.into()),
    };
    number.ok_or_else(|| {
        let wanted = match (least, most) {
            (Some(least), Some(most)) => format!("a number from {least} to {most}"),
            (Some(least), None) => format!("a number from {least}"),
            _ => "a number".to_owned(),
        };
        ApiError::invalid(format!("the parameter `{}` is {text:?}; give {wanted}", parameter.name))
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize, IntoParams)]
    #[into_params(parameter_in = Query)]
    struct Strict {
        name: Option<String>,
        #[param(minimum = 1, maximum = 100)]
        limit: Option<i64>,
        least: Option<f64>,
        #[serde(default)]
        filter: Vec<String>,
    }

    impl QueryParameters for Strict {}

    #[derive(Debug, Deserialize, IntoParams)]
    #[into_params(parameter_in = Query)]
    struct Form {
        name: Option<String>,
        limit: Option<i64>,
    }

    impl QueryParameters for Form {
        const EMPTY_IS_ABSENT: bool = true;
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn parameters_are_read_as_the_description_says() {
        let all = [("filter", "a=1"), ("limit", "100"), ("name", ""), ("least", "-0.5"), ("filter", "b=2")];
        let expected =
            Strict { name: Some(String::new()), limit: Some(100), least: Some(-0.5), filter: vec!["a=1".into(), "b=2".into()] };
        assert_eq!(read::<Strict>(pairs(&all)).unwrap(), expected);
        assert_eq!(read::<Strict>(Vec::new()).unwrap(), Strict::default());
        let form: Form = read(pairs(&[("name", ""), ("limit", "")])).unwrap();
        assert_eq!((form.name, form.limit), (None, None));
    }

    #[test]
    fn a_refusal_names_the_parameter_and_what_to_give() {
        for (given, message) in [
            (&[("nme", "x")][..], "unknown parameter `nme`; did you mean `name`?"),
            (&[("name", "x"), ("name", "y")], "the parameter `name` is given twice; give it once"),
            (&[("limit", "0")], "the parameter `limit` is \"0\"; give a number from 1 to 100"),
            (&[("limit", "many")], "the parameter `limit` is \"many\"; give a number from 1 to 100"),
            (&[("limit", "")], "the parameter `limit` is \"\"; give a number from 1 to 100"),
            (&[("least", "NaN")], "the parameter `least` is \"NaN\"; give a number"),
        ] {
            assert_eq!(read::<Strict>(pairs(given)).unwrap_err().message, message);
        }
        assert!(read::<Form>(pairs(&[("nme", "")])).is_err(), "an unknown parameter is refused even where it is empty");
    }
}
