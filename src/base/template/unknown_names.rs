//! Finds filters, tests and functions that do not exist when a template is compiled. The template engine itself looks them up when
//! a template runs, which would be at the first document that takes that branch.

use minijinja::{Environment, ErrorKind};

use super::lexer::{blocks, is_identifier, words_of};

/// The first unknown name in `source`, with its kind. `code` says whether all of the source is an expression.
pub(super) fn first(environment: &Environment<'_>, source: &str, code: bool, undeclared: &[String]) -> Option<String> {
    let words = if code { words_of(source) } else { blocks(source).flat_map(words_of).collect() };
    let mut words =
        words.iter().enumerate().map(|(index, word)| (index.checked_sub(1).map(|i| words[i]), *word, words.get(index + 1)));
    words.find_map(|(before, word, after)| {
        let name = after.copied().filter(|name| is_identifier(name));
        match word {
            "|" => name
                .filter(|name| fails(environment, &format!("0|{name}"), ErrorKind::UnknownFilter))
                .map(|n| format!("filter `{n}`")),
            "is" => {
                let name = name.filter(|name| !matches!(*name, "not"))?;
                fails(environment, &format!("0 is {name}"), ErrorKind::UnknownTest).then(|| format!("test `{name}`"))
            }
            "not" if before == Some("is") => name
                .filter(|name| fails(environment, &format!("0 is {name}"), ErrorKind::UnknownTest))
                .map(|n| format!("test `{n}`")),
            word if after == Some(&"(") && !matches!(before, Some("." | "|" | "is" | "not")) => {
                undeclared.iter().any(|name| name == word).then(|| format!("function `{word}`"))
            }
            _ => None,
        }
    })
}

fn fails(environment: &Environment<'_>, expression: &str, kind: ErrorKind) -> bool {
    let outcome = environment.compile_expression_owned(expression.to_owned()).and_then(|expression| expression.eval(()));
    outcome.is_err_and(|error| error.kind() == kind)
}
