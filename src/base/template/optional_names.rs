//! Finds names that a document may lack, because a template tests whether they are defined.

use super::lexer::{blocks, is_identifier, words_of};

/// The dotted paths before `is defined`, `is not defined`, `is undefined` or `| default`.
pub(super) fn find(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for block in blocks(source) {
        let words = words_of(block);
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        let mut at = 0;
        while at < words.len() {
            if !is_identifier(word(at)) {
                at += 1;
                continue;
            }
            let start = at;
            at += 1;
            while word(at) == "." && is_identifier(word(at + 1)) {
                at += 2;
            }
            let is_test = match word(at) {
                "is" if word(at + 1) == "not" => matches!(word(at + 2), "defined" | "undefined"),
                "is" => matches!(word(at + 1), "defined" | "undefined"),
                "|" => matches!(word(at + 1), "default" | "d"),
                _ => false,
            };
            if is_test {
                found.push(words[start..at].concat());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_guarded_where_the_template_asks_whether_it_is_there() {
        let found = |source: &str| find(source).join(" ");
        assert_eq!(found("{{ title }}{% if sub is defined and sub is not none %} ({{ sub }}){% endif %}"), "sub");
        assert_eq!(found("{% if not a.b is not defined %}{% endif %}{{ c | default('x') }}{{ d.e|d('') }}"), "a.b c d.e");
        assert_eq!(found("{{ a | upper }} {% if b is none %}{% endif %} c is defined {{ 'd is defined' }}"), "");
    }
}
