//! Rewrites slices such as `topic.text[:200]`. The template engine does not list the object of a slice among the names that a
//! template reads.

use super::lexer::{blocks, words_of};

/// `source` with each slice replaced by a subscript with a list, such as `topic.text[[0,200]]`; none if it has no slices. The
/// result is used to find names and never rendered. `code` says whether all of the source is an expression.
pub(super) fn as_subscripts(source: &str, code: bool) -> Option<String> {
    let mut rewritten = String::with_capacity(source.len() + 16);
    let mut sliced = false;
    let mut done = 0;
    let blocks: Vec<&str> = if code { vec![source] } else { blocks(source).collect() };
    for block in blocks {
        let start = place(source, block);
        rewritten.push_str(&source[done..start]);
        sliced |= rewrite(block, &mut rewritten);
        done = start + block.len();
    }
    rewritten.push_str(&source[done..]);
    sliced.then_some(rewritten)
}

enum Open {
    /// A subscript. `start` is its first byte in the rewritten text, `sliced` whether it has a colon.
    Subscript { start: usize, sliced: bool },
    /// A list, a call or a map.
    Other,
}

fn rewrite(block: &str, to: &mut String) -> bool {
    let mut open: Vec<Open> = Vec::new();
    let (mut before, mut done, mut changed) = ("", 0, false);
    for word in words_of(block) {
        let start = place(block, word);
        to.push_str(&block[done..start]);
        done = start + word.len();
        match word {
            "[" if ends_value(before) => {
                to.push_str(word);
                open.push(Open::Subscript { start: to.len(), sliced: false });
            }
            "[" | "(" | "{" => {
                to.push_str(word);
                open.push(Open::Other);
            }
            "]" | ")" | "}" => {
                if let Some(Open::Subscript { start, sliced: true }) = open.pop() {
                    changed = true;
                    to.insert(start, '[');
                    to.push_str(if before == ":" { "0]" } else { "]" });
                }
                to.push_str(word);
            }
            ":" => match open.last_mut() {
                Some(Open::Subscript { sliced, .. }) => {
                    *sliced = true;
                    to.push_str(if matches!(before, "[" | ":") { "0," } else { "," });
                }
                _ => to.push_str(word),
            },
            _ => to.push_str(word),
        }
        before = word;
    }
    to.push_str(&block[done..]);
    changed
}

/// Whether a bracket after this word opens a subscript.
fn ends_value(word: &str) -> bool {
    const OPERATORS: &[&str] = &["in", "if", "else", "and", "or", "not", "is"];
    let last = word.chars().next_back();
    last.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ']' | ')' | '"' | '\'')) && !OPERATORS.contains(&word)
}

/// The offset of `part` in `whole`, of which it is a slice.
fn place(whole: &str, part: &str) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_become_subscripts_and_all_else_stays() {
        let rewritten = |source: &str| as_subscripts(source, false);
        assert_eq!(rewritten("a [:2] {{ t.x[:20] | upper }}!").as_deref(), Some("a [:2] {{ t.x[[0,20]] | upper }}!"));
        assert_eq!(
            rewritten("{% for a in b[1:] %}{{ a[::2] }}{% endfor %}").as_deref(),
            Some("{% for a in b[[1,0]] %}{{ a[[0,0,2]] }}{% endfor %}")
        );
        assert_eq!(rewritten("{{ f(a[b[0]:c['x:y']])[:] }}").as_deref(), Some("{{ f(a[[b[0],c['x:y']]])[[0,0]] }}"));
        for none in ["{{ a[1] }}", "{{ {'a': [1, 2]} }}", "{{ 1 if a in [b] else [c] }}", "[:3]", "{# a[:3] #}"] {
            assert_eq!(rewritten(none), None, "{none}");
        }
        assert_eq!(as_subscripts("facts.features[:3]", true).as_deref(), Some("facts.features[[0,3]]"));
    }
}
