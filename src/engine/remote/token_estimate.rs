//! Tokens of a model whose tokenizer nobody shows us: an estimate by bytes.
//!
//! A token stands for four bytes of ASCII or three of anything else. That is near the truth for prose in most scripts, a little high for
//! English, and low for tables of numbers and code. The server has the last word on what is too long.

use std::ops::Range;

use super::RemoteModel;
use super::chat_request::ChatRequest;
use super::reply::Reply;
use tidemill_base::failure::{Failure, FailureClass};
use tidemill_base::outcome::Span;

/// Twelfths of a token that a byte counts for.
const ASCII: usize = 3;
const OTHER: usize = 4;
const TOKEN: usize = 12;

/// Tokens that a message takes besides its content.
const MESSAGE: usize = 4;

/// How far an estimate may be off. What is longer than the context even so is not worth sending, and some servers would cut it off without
/// a word.
const MARGIN: usize = 2;

impl RemoteModel {
    /// Tokens of the text, estimated.
    pub(crate) fn count(&self, text: &str) -> usize {
        twelfths(text).div_ceil(TOKEN)
    }

    /// Pieces of the text of at most `tokens` tokens by the same estimate, neighbours sharing about `overlap` of them. Pieces begin and end
    /// at white space where there is any.
    pub(crate) fn split(&self, text: &str, tokens: usize, overlap: usize) -> Vec<Span> {
        let tokens = tokens.max(1);
        let overlap = overlap.min(tokens - 1);
        let mut spans = Vec::new();
        let mut start = 0;
        loop {
            let end = start + piece(&text[start..], tokens);
            spans.push(Span { start, end });
            if end == text.len() {
                return spans;
            }
            let next = end - tail(&text[start..end], overlap);
            start = if next > start { next } else { end };
        }
    }

    /// Refuses a prompt that no estimate is wrong enough for.
    pub(super) fn refuse_oversized(&self, question: &ChatRequest<'_>) -> Result<(), Failure> {
        let (prompt, context) = (self.prompt_tokens(question) as usize, self.info.max_tokens);
        if prompt / MARGIN <= context {
            return Ok(());
        }
        let reason = format!(
            "the prompt is about {prompt} tokens long and model {:?} takes {context}; shorten the document or the prompt",
            self.info.name
        );
        Err(Failure::poison(FailureClass::TooLong, reason))
    }

    /// Tokens that the server will have read, where it does not say.
    pub(super) fn prompt_tokens(&self, question: &ChatRequest<'_>) -> u32 {
        let tokens: usize = question.messages.iter().map(|message| MESSAGE + self.count(&message.content)).sum();
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// Tokens that the server has written, where it does not say.
    pub(super) fn completion_tokens(&self, reply: &Reply) -> u32 {
        let tokens = if reply.tokens.is_empty() { self.count(reply.text()) } else { reply.tokens.len() };
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }
}

fn weight(c: char) -> usize {
    if c.is_ascii() { ASCII } else { OTHER * c.len_utf8() }
}

fn twelfths(text: &str) -> usize {
    let ascii = text.bytes().filter(u8::is_ascii).count();
    ASCII * ascii + OTHER * (text.len() - ascii)
}

/// Bytes of the first piece of `text`: at least one character, unless there is none.
fn piece(text: &str, tokens: usize) -> usize {
    let Range { end, .. } = within(text.char_indices().map(|(at, c)| at..at + c.len_utf8()), text, tokens);
    if end == text.len() {
        return end;
    }
    let end = end.max(text.chars().next().map_or(0, char::len_utf8));
    // Far from the end a space is no better than none: the piece would become much shorter than asked.
    let space = text[..end].rfind(char::is_whitespace).filter(|space| *space > end / 2);
    space.unwrap_or(end)
}

/// Bytes at the end of `text` that `tokens` tokens cover, from a space where there is one.
fn tail(text: &str, tokens: usize) -> usize {
    let places = text.char_indices().rev().map(|(at, c)| at..at + c.len_utf8());
    let Range { start, .. } = within(places, text, tokens);
    if start >= text.len() {
        return 0;
    }
    let space = text[start..].find(char::is_whitespace).map(|space| start + space);
    text.len() - space.unwrap_or(start)
}

/// What the characters at `places`, one after the other, cover together before they weigh more than `tokens`.
fn within(places: impl Iterator<Item = Range<usize>>, text: &str, tokens: usize) -> Range<usize> {
    let mut left = tokens.saturating_mul(TOKEN);
    let mut covered: Option<Range<usize>> = None;
    for place in places {
        let cost = text[place.clone()].chars().next().map_or(0, weight);
        let Some(rest) = left.checked_sub(cost) else { break };
        left = rest;
        covered = Some(covered.map_or(place.clone(), |all| all.start.min(place.start)..all.end.max(place.end)));
    }
    covered.unwrap_or(text.len()..0)
}
