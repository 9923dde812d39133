//! Estimates tokens from bytes for a model whose tokenizer is unknown.
//!
//! A token is counted as four bytes of ASCII or three of anything else. That is close for prose in most scripts, slightly high for
//! English, and low for tables of numbers and code. The server decides what is too long.

use std::ops::Range;

use super::RemoteModel;
use super::chat_request::ChatRequest;
use super::reply::Reply;
use tidemill_base::failure::{Failure, FailureClass};
use tidemill_base::outcome::Span;

/// Twelfths of a token per byte.
const ASCII: usize = 3;
const OTHER: usize = 4;
const TOKEN: usize = 12;

/// Tokens of a message besides its content.
const MESSAGE: usize = 4;

/// The assumed maximum error factor. A prompt that is too long even after dividing by it is not sent: some servers would truncate
/// it silently.
const MARGIN: usize = 2;

impl RemoteModel {
    /// The estimated number of tokens of the text.
    pub(crate) fn count(&self, text: &str) -> usize {
        twelfths(text).div_ceil(TOKEN)
    }

    /// Splits the text into pieces of at most `tokens` estimated tokens. Neighbouring pieces share about `overlap` tokens. Pieces
    /// start and end at white space if there is any.
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

    /// Refuses a prompt that would be too long even if the estimate were wrong by [`MARGIN`].
    pub(super) fn refuse_oversized(&self, question: &ChatRequest<'_>) -> Result<(), Failure> {
        let (prompt, context) = (self.prompt_tokens(question) as usize, self.info.max_tokens);
        if prompt / MARGIN <= context {
            return Ok(());
        }
        let reason = format!(
            "the prompt has about {prompt} tokens and model {:?} accepts {context}; shorten the document or the prompt",
            self.info.name
        );
        Err(Failure::poison(FailureClass::TooLong, reason))
    }

    /// The estimated number of tokens read, for servers that do not report it.
    pub(super) fn prompt_tokens(&self, question: &ChatRequest<'_>) -> u32 {
        let tokens: usize = question.messages.iter().map(|message| MESSAGE + self.count(&message.content)).sum();
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// The estimated number of tokens generated, for servers that do not report it.
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

/// The length of the first piece of `text` in bytes: at least one character, unless the text is empty.
fn piece(text: &str, tokens: usize) -> usize {
    let Range { end, .. } = within(text.char_indices().map(|(at, c)| at..at + c.len_utf8()), text, tokens);
    if end == text.len() {
        return end;
    }
    let end = end.max(text.chars().next().map_or(0, char::len_utf8));
    // A space far before the end is not used, because the piece would become much too short.
    let space = text[..end].rfind(char::is_whitespace).filter(|space| *space > end / 2);
    space.unwrap_or(end)
}

/// The length in bytes of the end of `text` that `tokens` tokens cover, starting at a space if there is one.
fn tail(text: &str, tokens: usize) -> usize {
    let places = text.char_indices().rev().map(|(at, c)| at..at + c.len_utf8());
    let Range { start, .. } = within(places, text, tokens);
    if start >= text.len() {
        return 0;
    }
    let space = text[start..].find(char::is_whitespace).map(|space| start + space);
    text.len() - space.unwrap_or(start)
}

/// The range of the characters at `places`, taken in their order until they exceed `tokens`.
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
