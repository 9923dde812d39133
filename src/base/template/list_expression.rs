//! Expressions whose value is a list, for tasks that run once for each item.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Expression, Value};

use super::{TemplateError, compile, look_up, poison, template_failed};
use crate::failure::{FailureClass, Poison};

/// A compiled expression whose value is a list.
#[derive(Debug)]
pub struct ListExpression {
    source: String,
    expression: Expression<'static, 'static>,
    variables: Vec<String>,
}

impl ListExpression {
    /// Compiles `source`, an expression.
    ///
    /// # Errors
    /// Where it has a syntax error or uses an unknown filter, test or function.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        let (expression, variables) = compile(source)?;
        Ok(Self { source: source.to_owned(), expression, variables })
    }

    /// The names that the expression reads, as full dotted paths, in the order of appearance.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// The items of the list, of which there may be at most `limit`. Null is an empty list.
    pub fn items(&self, context: &Value, limit: usize) -> Result<Vec<Value>, Poison> {
        let value = self.expression.eval(context.clone()).map_err(|error| self.explain(&error, context))?;
        match value.kind() {
            ValueKind::Undefined => return Err(self.absent(context)),
            ValueKind::None => return Ok(Vec::new()),
            ValueKind::Seq | ValueKind::Iterable => {}
            kind => {
                let reason =
                    format!("`{}` is a {kind}, but must be a list, because the task runs once for each item", self.source);
                return Err(poison(FailureClass::WrongType, reason));
            }
        }
        let items: Vec<Value> = value.try_iter().map_err(|error| self.explain(&error, context))?.take(limit + 1).collect();
        if items.len() > limit {
            let reason =
                format!("the list `{}` has more than {limit} items: take fewer, as in `{}[:{limit}]`", self.source, self.source);
            return Err(poison(FailureClass::TooLarge, reason));
        }
        Ok(items)
    }

    fn explain(&self, error: &Error, context: &Value) -> Poison {
        match error.kind() {
            ErrorKind::UndefinedError => self.absent(context),
            ErrorKind::OutOfFuel => template_failed(error),
            _ => poison(FailureClass::Template, format!("the list `{}` fails on this document: {error}", self.source)),
        }
    }

    fn absent(&self, context: &Value) -> Poison {
        let path = self.variables.iter().find(|path| look_up(context, path).is_undefined());
        let name = path.map_or_else(|| format!("`{}`", self.source), |path| format!("`{path}`"));
        poison(FailureClass::MissingField, format!("field {name} is absent, but `for_each` reads it"))
    }
}

#[cfg(test)]
mod tests {
    use minijinja::value::Serde;
    use serde_json::json;

    use super::*;

    fn items(source: &str) -> Result<Vec<String>, Poison> {
        let context = json!({"facts": {"features": ["a", "b", "c"], "none": null, "empty": [], "name": "abc"}});
        let items = ListExpression::new(source).unwrap().items(&Value::from(Serde(context)), 3)?;
        Ok(items.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_list_gives_its_items_in_order() {
        assert_eq!(items("facts.features").unwrap(), ["a", "b", "c"]);
        assert_eq!(items("facts.features[:2]").unwrap(), ["a", "b"]);
        assert_eq!(items("facts.empty").unwrap(), [""; 0]);
        assert_eq!(items("facts.none").unwrap(), [""; 0]);
        assert_eq!(ListExpression::new("facts.features[:2] + more").unwrap().variables(), ["facts.features", "more"]);
    }

    #[test]
    fn what_is_no_list_or_too_long_or_absent_is_poison() {
        let refused = |source| items(source).unwrap_err();
        assert_eq!(refused("facts.name").class, FailureClass::WrongType);
        assert_eq!(refused("facts").class, FailureClass::WrongType);
        assert_eq!(refused("facts.nothing").class, FailureClass::MissingField);
        assert_eq!(refused("nothing.at.all").class, FailureClass::MissingField);
        assert_eq!(refused("range(4)").class, FailureClass::TooLarge);
        assert!(ListExpression::new("facts.features |").is_err());
        assert_eq!(ListExpression::new("facts | strange").unwrap_err().to_string(), "unknown filter `strange`");
    }
}
