//! Expressions whose value is a number.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Expression, Value};

use super::{TemplateError, compile, look_up, poison, template_failed};
use crate::failure::{FailureClass, Poison};

/// A compiled expression whose value is a number.
#[derive(Debug)]
pub struct Formula {
    source: String,
    expression: Expression<'static, 'static>,
    variables: Vec<String>,
}

impl Formula {
    /// Compiles `source`, an expression.
    ///
    /// # Errors
    /// Where it has a syntax error or uses an unknown filter, test or function.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        let (expression, variables) = compile(source)?;
        Ok(Self { source: source.to_owned(), expression, variables })
    }

    /// The expression as written in the pipeline file.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The names that the expression reads, as full dotted paths, in the order of appearance.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Evaluates the expression to a number.
    pub fn number(&self, context: &Value) -> Result<f64, Poison> {
        let value = self.expression.eval(context.clone()).map_err(|error| self.explain(&error, context))?;
        let refuse = |what: &str| {
            Err(poison(FailureClass::WrongType, format!("`{}` is {what} for this document, but must be a number", self.source)))
        };
        match value.kind() {
            ValueKind::Undefined => Err(self.absent(context)),
            ValueKind::None => refuse("null"),
            // A boolean is refused: counting it as 1 or 0 would hide a forgotten `… if … else 0`.
            ValueKind::Number => match f64::try_from(value) {
                Ok(number) if number.is_finite() => Ok(number),
                _ => refuse("not finite"),
            },
            kind => refuse(&format!("a {kind}")),
        }
    }

    fn explain(&self, error: &Error, context: &Value) -> Poison {
        match error.kind() {
            ErrorKind::UndefinedError => self.absent(context),
            ErrorKind::InvalidOperation if error.detail().is_some_and(|detail| detail.contains("undefined")) => {
                self.absent(context)
            }
            ErrorKind::OutOfFuel => template_failed(error),
            _ => poison(FailureClass::Template, format!("`{}` fails on this document: {error}", self.source)),
        }
    }

    fn absent(&self, context: &Value) -> Poison {
        let path = self.variables.iter().find(|path| look_up(context, path).is_undefined());
        let name = path.map_or_else(|| "a value".to_owned(), |path| format!("field `{path}`"));
        poison(FailureClass::MissingField, format!("{name} is absent, but `{}` reads it", self.source))
    }
}

#[cfg(test)]
mod tests {
    use minijinja::value::Serde;
    use serde_json::json;

    use super::*;

    fn number(source: &str) -> Result<f64, Poison> {
        let context = json!({"topic": {"label": "buying", "confidence": 0.5}, "facts": {"budget": null, "name": "x"}});
        Formula::new(source).unwrap().number(&Value::from(Serde(context)))
    }

    #[test]
    fn numbers_come_out_as_they_are() {
        assert_eq!(number("40 if topic.label == 'buying' else 0"), Ok(40.0));
        assert_eq!(number("40 * topic.confidence"), Ok(20.0));
        assert_eq!(number("0 if facts.budget is none else 10"), Ok(0.0));
        assert_eq!(Formula::new("facts.a + topic.b").unwrap().variables(), ["facts.a", "topic.b"]);
    }

    #[test]
    fn what_is_no_number_is_poison_that_names_the_formula() {
        for (source, class) in [
            ("topic.label", FailureClass::WrongType),
            ("topic.label == 'buying'", FailureClass::WrongType),
            ("facts.budget", FailureClass::WrongType),
            ("facts", FailureClass::WrongType),
            ("1 / 0", FailureClass::Template),
            ("facts.nothing", FailureClass::MissingField),
            ("1 + facts.nothing", FailureClass::MissingField),
            ("facts.name - 1", FailureClass::Template),
        ] {
            let refused = number(source).expect_err(source);
            assert!(refused.class == class && refused.reason.contains(source), "{source}: {refused}");
        }
        assert_eq!(Formula::new("topic.label | strange").unwrap_err().to_string(), "unknown filter `strange`");
        assert!(Formula::new("40 if").is_err());
    }
}
