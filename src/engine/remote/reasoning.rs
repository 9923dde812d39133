//! Finds the answer in a text that may also contain the model's reasoning and code fences.

use std::ops::Range;

/// The marks that models write around their reasoning, if the server does not remove it. The closing mark of the last pair also
/// starts the answer.
const MARKS: &[(&str, &str)] = &[
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>thought", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
];

const FENCE: &str = "```";

/// Why the answer cannot be separated from the reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReasoningFault {
    /// The reasoning is not closed.
    Unclosed,
    /// A mark occurs inside the text.
    InsideText,
}

/// The part of `text` after the reasoning; all of it if there is none.
pub(super) fn after_reasoning(text: &str) -> Result<Range<usize>, ReasoningFault> {
    let mut start = 0;
    loop {
        let rest = text[start..].trim_start();
        let begin = text.len() - rest.len();
        if let Some((open, close)) = MARKS.iter().find(|(open, _)| rest.starts_with(open)) {
            let end = rest[open.len()..].find(close).ok_or(ReasoningFault::Unclosed)?;
            start = begin + open.len() + end + close.len();
            continue;
        }
        let first = |mark: &'static str| rest.find(mark).map(|at| (at, mark));
        let opening = MARKS.iter().filter_map(|(open, _)| first(open)).min();
        let closing = MARKS.iter().filter_map(|(_, close)| first(close)).min();
        match (opening, closing) {
            (None, None) => return Ok(if start == 0 { 0 } else { begin }..text.len()),
            // The opening mark may be part of the prompt, written by the chat template.
            (opening, Some((at, mark))) if start == 0 && opening.is_none_or(|(before, _)| at < before) => {
                start = begin + at + mark.len();
            }
            _ => return Err(ReasoningFault::InsideText),
        }
    }
}

/// The JSON object in a code fence, if the text has exactly one fence.
pub(super) fn json_in_fence(text: &str) -> Option<Range<usize>> {
    let fences: Vec<usize> = text.match_indices(FENCE).map(|(at, _)| at).collect();
    let [open, close] = fences[..] else { return None };
    let inside = open + FENCE.len()..close;
    let begin = inside.start + text[inside.clone()].find('{')?;
    // The language name of the fence.
    let language = text[inside.start..begin].trim();
    let end = begin + text[begin..close].trim_end().len();
    language.chars().all(char::is_alphanumeric).then_some(begin..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_stands_behind_the_thoughts() {
        for text in [
            "A kettle.",
            "<think>Hm.</think>\n\nA kettle.",
            "\n<think></think>A kettle.",
            "Hm.\n</think>\n\nA kettle.",
            "<think>a</think> <think>b</think> A kettle.",
            "[THINK]Hm.[/THINK]A kettle.",
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>A kettle.",
        ] {
            assert_eq!(after_reasoning(text).map(|range| &text[range]), Ok("A kettle."), "{text}");
        }
        assert_eq!(after_reasoning("  as it is "), Ok(0..11), "without reasoning nothing is cut off");
        assert_eq!(after_reasoning("<think>only</think>"), Ok(19..19));
    }

    #[test]
    fn what_cannot_be_told_from_a_thought_is_no_answer() {
        for (text, stray) in [
            ("<think>I am still", ReasoningFault::Unclosed),
            ("<think>a</think><think>b", ReasoningFault::Unclosed),
            ("A kettle. <think>Hm", ReasoningFault::InsideText),
            ("A kettle. <think>Hm.</think> More.", ReasoningFault::InsideText),
            ("<think>a</think>A kettle.</think>", ReasoningFault::InsideText),
        ] {
            assert_eq!(after_reasoning(text), Err(stray), "{text}");
        }
    }

    #[test]
    fn an_object_is_found_in_the_only_fence() {
        for text in ["```json\n{\"a\":1}\n```", "Here it is:\n```\n{\"a\":1}\n```\nGood?", "```{\"a\":1}```"] {
            assert_eq!(json_in_fence(text).map(|range| &text[range]), Some("{\"a\":1}"), "{text}");
        }
        for text in ["{\"a\":1}", "```json\n{}", "```\n{}\n```\n```\n{}\n```", "``` see below: {} ```", "```\nno object\n```"] {
            assert_eq!(json_in_fence(text), None, "{text}");
        }
    }
}
