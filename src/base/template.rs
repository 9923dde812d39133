//! Templates and expressions of pipeline files.
//!
//! Only the pipeline file has templates; a document is a value in them. The content of a document is never rendered as a template,
//! so a text with `{{ … }}` stays as it is. Nothing is escaped, because the output is text for models and not HTML.

mod filters;
mod formula;
mod lexer;
mod list_expression;
mod optional_names;
mod slice_rewrite;
mod unknown_names;

use std::io::{self, Write};
use std::sync::LazyLock;

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Expression, UndefinedBehavior, Value};

pub use formula::Formula;
pub use list_expression::ListExpression;

use crate::failure::{FailureClass, Poison};

/// How many steps of the engine one template or condition may take for one document. A page of text with a loop over a few thousand
/// items takes far fewer. A loop that a document makes very long is stopped within milliseconds.
const STEPS: u64 = 200_000;

/// Which values `{{ … }}` may print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrintMode {
    /// Strings only. A number in place of a title is a fault of the document.
    Strings,
    /// Strings, numbers and booleans; lists and objects through `tojson`.
    Scalars,
}

/// A compiled template, ready to be rendered.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    variables: Vec<String>,
    /// Names that the template tests before it reads them.
    optional: Vec<String>,
    limit: usize,
}

/// A compiled condition, ready to be evaluated.
#[derive(Debug)]
pub struct Condition {
    source: String,
    expression: Expression<'static, 'static>,
    variables: Vec<String>,
}

/// A template or condition that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", line.filter(|line| *line > 1).map(|line| format!(", in line {line} of the template")).unwrap_or_default())]
pub struct TemplateError {
    pub message: String,
    /// The line of the template, from 1, if known.
    pub line: Option<usize>,
}

/// Why a condition is neither true nor false.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConditionError {
    /// It reads a value that is absent. The message names it.
    Absent(String),
    /// It fails for another reason.
    Poison(Poison),
}

static CONDITIONS: LazyLock<Environment<'static>> = LazyLock::new(environment);

impl Template {
    /// Compiles `source`. Rendering an output longer than `limit` bytes fails.
    pub fn new(source: &str, prints: PrintMode, limit: usize) -> Result<Self, TemplateError> {
        let mut environment = environment();
        environment.set_formatter(move |output, _state, value| match value.kind() {
            ValueKind::String => Ok(output.write_str(value.as_str().unwrap_or_default())?),
            ValueKind::Number | ValueKind::Bool if prints == PrintMode::Scalars => Ok(write!(output, "{value}")?),
            ValueKind::None => Err(Error::new(ErrorKind::UndefinedError, "null")),
            kind => Err(Error::new(ErrorKind::NonPrimitive, kind.to_string())),
        });
        environment.add_template_owned(NAME, source.to_owned()).map_err(|e| TemplateError::new(&e))?;
        let template = environment.get_template(NAME).map_err(|e| TemplateError::new(&e))?;
        let names = match slice_rewrite::as_subscripts(source, false) {
            Some(rewritten) => {
                let rewritten = environment.template_from_str(&rewritten).map_err(|e| TemplateError::new(&e))?;
                rewritten.undeclared_variables(true)
            }
            None => template.undeclared_variables(true),
        };
        let variables = in_order(names, source);
        TemplateError::refuse(unknown_names::first(&environment, source, false, &variables))?;
        Ok(Self { environment, variables, optional: optional_names::find(source), limit })
    }

    /// The names that the template reads, as full dotted paths, in the order of appearance.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Whether a document may lack `path`, because the template tests whether the path, or an object that contains it, is defined.
    pub fn is_optional(&self, path: &str) -> bool {
        let contains =
            |optional: &String| path.strip_prefix(optional.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.optional.iter().any(contains)
    }

    /// Renders the template with the variables in `context`.
    ///
    /// # Errors
    /// Where a variable is absent or of the wrong type, the output exceeds the limit, or rendering takes too many steps.
    pub fn render(&self, context: &Value) -> Result<String, Poison> {
        let template = self.environment.get_template(NAME).map_err(|e| template_failed(&e))?;
        let mut output = Limited { bytes: Vec::new(), left: self.limit, full: false };
        match template.render_captured_to(context.clone(), &mut output) {
            Ok(_) => String::from_utf8(output.bytes).map_err(|e| poison(FailureClass::Template, e.to_string())),
            Err(_) if output.full => Err(poison(
                FailureClass::TooLarge,
                format!("the template's output is longer than the limit of {} bytes", self.limit),
            )),
            Err(error) => Err(self.explain(&error, context)),
        }
    }

    fn explain(&self, error: &Error, context: &Value) -> Poison {
        let of_kind = |wanted: fn(&Value) -> bool| {
            self.variables.iter().find(|path| wanted(&look_up(context, path))).map(|path| format!("`{path}`"))
        };
        match (error.kind(), error.detail()) {
            (ErrorKind::UndefinedError, Some("null")) => {
                let name = of_kind(Value::is_none).unwrap_or_else(|| "a value of the template".into());
                poison(FailureClass::MissingField, format!("field {name} is null, but the template prints it"))
            }
            (ErrorKind::UndefinedError, detail) => {
                let name = of_kind(Value::is_undefined).or_else(|| detail.map(str::to_owned)).unwrap_or_else(|| "a value".into());
                poison(FailureClass::MissingField, format!("field {name} is absent, but the template reads it"))
            }
            (ErrorKind::NonPrimitive, Some(kind)) => {
                let name = of_kind(|v| !matches!(v.kind(), ValueKind::String | ValueKind::Undefined | ValueKind::None));
                let name = name.unwrap_or_else(|| "a value of the template".into());
                poison(FailureClass::WrongType, format!("field {name} is a {kind}, but the template prints it as text"))
            }
            _ => template_failed(error),
        }
    }
}

impl Condition {
    /// Compiles `source`, an expression.
    ///
    /// # Errors
    /// Where it has a syntax error or uses an unknown filter, test or function.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        let (expression, variables) = compile(source)?;
        Ok(Self { source: source.to_owned(), expression, variables })
    }

    /// The names that the condition reads, as full dotted paths, in the order of appearance.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Whether the condition is true of `context`.
    pub fn holds(&self, context: &Value) -> Result<bool, ConditionError> {
        let value = self.expression.eval(context.clone()).map_err(|error| self.explain(&error, context))?;
        if value.is_undefined() { Err(self.absent(context, None)) } else { Ok(value.is_true()) }
    }

    fn explain(&self, error: &Error, context: &Value) -> ConditionError {
        match error.kind() {
            ErrorKind::UndefinedError => self.absent(context, error.detail()),
            // An operator reports an undefined operand as an invalid operation.
            ErrorKind::InvalidOperation if error.detail().is_some_and(|d| d.contains("undefined")) => {
                self.absent(context, error.detail())
            }
            ErrorKind::OutOfFuel => ConditionError::Poison(template_failed(error)),
            _ => {
                let reason = format!("the condition `{}` fails on this document: {error}", self.source);
                ConditionError::Poison(poison(FailureClass::Template, reason))
            }
        }
    }

    fn absent(&self, context: &Value, detail: Option<&str>) -> ConditionError {
        let path = self.variables.iter().find(|path| look_up(context, path).is_undefined());
        let name = path.map(|p| format!("`{p}`")).or_else(|| detail.map(str::to_owned)).unwrap_or_else(|| "a value".into());
        ConditionError::Absent(format!("{name} is absent, but the condition `{}` reads it", self.source))
    }
}

impl TemplateError {
    fn refuse(unknown: Option<String>) -> Result<(), Self> {
        unknown.map_or(Ok(()), |name| Err(Self { message: format!("unknown {name}"), line: None }))
    }

    fn new(error: &Error) -> Self {
        Self { message: error.detail().map_or_else(|| error.kind().to_string(), str::to_owned), line: error.line() }
    }
}

const NAME: &str = "template";

/// Compiles an expression; returns it with the names that it reads.
fn compile(source: &str) -> Result<(Expression<'static, 'static>, Vec<String>), TemplateError> {
    let expression = CONDITIONS.compile_expression_owned(source.to_owned()).map_err(|e| TemplateError::new(&e))?;
    let names = match slice_rewrite::as_subscripts(source, true) {
        Some(rewritten) => {
            let rewritten = CONDITIONS.compile_expression(&rewritten).map_err(|e| TemplateError::new(&e))?;
            rewritten.undeclared_variables(true)
        }
        None => expression.undeclared_variables(true),
    };
    let variables = in_order(names, source);
    TemplateError::refuse(unknown_names::first(&CONDITIONS, source, true, &variables))?;
    Ok((expression, variables))
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(STEPS));
    // With debug information, an error message would contain the whole document.
    environment.set_debug(false);
    environment.remove_global("debug");
    environment.add_filter("tojson", to_json);
    filters::add(&mut environment);
    environment
}

/// The value as compact JSON. The template engine's own filter escapes HTML characters, which a model should not see.
fn to_json(value: &Value) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    serde_json::to_string(value).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
}

fn in_order(names: impl IntoIterator<Item = String>, source: &str) -> Vec<String> {
    let globals: Vec<&str> = CONDITIONS.globals().map(|(name, _)| name).collect();
    let mut names: Vec<String> = names.into_iter().filter(|name| !globals.contains(&root(name))).collect();
    names.sort_by_cached_key(|name| (source.find(name.as_str()), name.clone()));
    names
}

/// The first segment of a dotted path.
pub fn root(path: &str) -> &str {
    path.split_once('.').map_or(path, |(root, _)| root)
}

fn look_up(context: &Value, path: &str) -> Value {
    let mut value = context.clone();
    for segment in path.split('.') {
        value = match value.get_attr(segment) {
            Ok(next) => next,
            Err(_) => return Value::UNDEFINED,
        };
    }
    value
}

fn poison(class: FailureClass, reason: String) -> Poison {
    Poison { class, reason }
}

fn template_failed(error: &Error) -> Poison {
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => format!("the template takes more than {STEPS} steps on this document"),
        _ => format!("the template fails on this document: {error}"),
    };
    poison(FailureClass::Template, reason)
}

/// A buffer that refuses more than a number of bytes.
struct Limited {
    bytes: Vec<u8>,
    left: usize,
    full: bool,
}

impl Write for Limited {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if buffer.len() > self.left {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.left -= buffer.len();
        self.bytes.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use minijinja::value::Serde;
    use serde_json::json;

    use super::*;

    fn context() -> Value {
        Value::from(Serde(
            json!({"document": {"text": "x", "tokens": 7, "fields": {}}, "topic": {"label": "Sports", "confidence": 0.7}}),
        ))
    }

    fn holds(condition: &str) -> Result<bool, ConditionError> {
        Condition::new(condition).unwrap().holds(&context())
    }

    #[test]
    fn conditions_read_the_document_and_outputs() {
        assert_eq!(holds("document.tokens > 5"), Ok(true));
        assert_eq!(holds("topic.confidence > 0.8 or topic.label == 'Sports'"), Ok(true));
        assert_eq!(holds("facts is defined"), Ok(false));
        assert_eq!(holds("document.fields.price is defined and document.fields.price > 3"), Ok(false));
    }

    #[test]
    fn what_a_condition_misses_is_named() {
        for condition in
            ["facts.price > 1", "facts", "not facts", "facts == 1", "document.fields.price > 3", "1 + document.fields.price"]
        {
            match holds(condition) {
                Err(ConditionError::Absent(reason)) => {
                    assert!(reason.starts_with("`facts") || reason.starts_with("`document.fields.price`"), "{reason}")
                }
                other => panic!("`{condition}` reads what is absent, but gave {other:?}"),
            }
        }
    }

    #[test]
    fn names_that_do_not_exist_are_found_without_running() {
        let refused = |source: &str| Template::new(source, PrintMode::Scalars, 100).unwrap_err().to_string();
        assert_eq!(refused("{% if a %}{{ b | uper }}{% endif %}"), "unknown filter `uper`");
        assert_eq!(refused("{% if a is not strange %}{% endif %}"), "unknown test `strange`");
        assert_eq!(refused("{% if a is strange %}{% endif %}"), "unknown test `strange`");
        assert_eq!(refused("{{ shout(a) }}"), "unknown function `shout`");
        assert_eq!(Condition::new("document.text | nothing").unwrap_err().to_string(), "unknown filter `nothing`");
        assert!(Condition::new("document.tokens >").is_err());
    }

    #[test]
    fn lists_and_objects_print_as_json_where_a_template_says_so() {
        let render = |source: &str| Template::new(source, PrintMode::Scalars, 100).unwrap().render(&context());
        assert_eq!(render("{{ topic | tojson }}").unwrap(), r#"{"confidence":0.7,"label":"Sports"}"#);
        assert_eq!(render("{{ [\"it's <b>\", 1, none] | tojson }}").unwrap(), r#"["it's <b>",1,null]"#);
        assert_eq!(render("{{ topic }}").unwrap_err().class, FailureClass::WrongType);
        assert_eq!(render("{{ document.fields.price | tojson }}").unwrap_err().class, FailureClass::MissingField);
    }

    #[test]
    fn a_fault_of_a_template_knows_its_line() {
        let error = Template::new("one\ntwo {{ x", PrintMode::Scalars, 100).unwrap_err();
        assert_eq!(error.line, Some(2));
        assert!(error.to_string().ends_with(", in line 2 of the template"), "{error}");
    }

    #[test]
    fn quotes_comments_and_raw_text_are_no_names() {
        let good = [
            "{{ 'a | b is c' }}{{ \"}} | x\" }}",
            "{# a | b #}{% raw %}{{ a | b }}{% endraw %}{{ t | upper | default('x') }}",
            "{% for i in range(3) %}{{ loop.index }}{% endfor %}{% macro m(x) %}{{ x }}{% endmacro %}{{ m('1') }}",
            "{% if t is defined and t is not none %}{{ t.upper() }}{% endif %} a | b { is odd }",
        ];
        for source in good {
            if let Err(error) = Template::new(source, PrintMode::Scalars, 100) {
                panic!("`{source}` is good, but: {error}");
            }
        }
    }

    #[test]
    fn variables_come_in_order_of_appearance_without_builtins() {
        let template = Template::new(
            "{{ title }} {{ document.text }} {% for i in range(2) %}{{ brand }}{% endfor %}",
            PrintMode::Scalars,
            9,
        );
        assert_eq!(template.unwrap().variables(), ["title", "document.text", "brand"]);
        let sliced =
            Template::new("{{ topic.text[:20] }}{% for x in facts.list[1:] %}{{ x[:3] }}{% endfor %}", PrintMode::Scalars, 9);
        assert_eq!(sliced.unwrap().variables(), ["topic.text", "facts.list"]);
        assert_eq!(Condition::new("topic.text[:3] == 'abc'").unwrap().variables(), ["topic.text"]);
    }
}
