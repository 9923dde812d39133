//! Constrains the tokens of an answer to JSON that a schema allows.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::{Matcher, ParserFactory};
use tokenizers::Tokenizer;
use toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use super::definition::TokenizerDefinition;
use super::encoding;
use super::grammar::grammar_schema;
use super::number_digits::DigitCounter;
use crate::error::panic_text;
use crate::schema::Schema;
use crate::span_grammar::SpanGrammar;
use tidemill_base::failure::{FailureClass, Poison};

/// A set of tokens, one bit each.
pub(crate) use toktrie::SimpleVob as TokenMask;

/// Grammars in the cache. Each takes a few megabytes once it is in use; pipelines have only a few.
const MAX_GRAMMARS: usize = 64;

/// The longest schema to compile: twice the longest published ones. Compile time grows with the length.
const MAX_SCHEMA_BYTES: usize = 256 << 10;

/// The maximum number of states in a grammar's automaton, at 1 to 2 kB each. Schemas with named fields need far fewer.
const MAX_STATES: usize = 50_000;

/// Compiles schemas for one model and caches the compiled grammars.
pub(crate) struct GrammarCache {
    factory: ParserFactory,
    digit_tokens: Arc<DigitTokens>,
    end_ids: Arc<[u32]>,
    cached: Mutex<HashMap<String, Arc<Grammar>>>,
    clock: AtomicU64,
}

struct Grammar {
    start: Matcher,
    /// When it was last used.
    used: AtomicU64,
    /// Whether a sequence has reached a limit that all sequences of the grammar share.
    is_exhausted: AtomicBool,
}

/// The tokens that continue a number.
struct DigitTokens {
    environment: TokEnv,
    /// Tokens that start with a digit.
    digits: TokenMask,
    /// Tokens that start with a zero.
    zeros: TokenMask,
}

/// The state of one answer.
pub(crate) struct SchemaConstraint {
    matcher: Matcher,
    grammar: Arc<Grammar>,
    digits: DigitCounter,
    digit_tokens: Arc<DigitTokens>,
    end_ids: Arc<[u32]>,
}

impl GrammarCache {
    /// For a model with `vocabulary` logits, which may be more than it has tokens. Any of `end_ids` ends an answer.
    ///
    /// # Errors
    /// One sentence without its subject, the tokenizer.
    pub(super) fn new(definition: &TokenizerDefinition, vocabulary: usize, end_ids: Arc<[u32]>) -> Result<Self, String> {
        let environment: TokEnv = Arc::new(TokenizerEnvironment::new(definition, vocabulary, &end_ids));
        let abilities = InferenceCapabilities { ff_tokens: true, ..InferenceCapabilities::default() };
        let mut factory = ParserFactory::new(&environment, abilities, &SlicedBiasComputer::json_slices())
            .map_err(|e| format!("cannot be used to follow schemas: {}", in_short(&e.to_string())))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits { max_lexer_states: MAX_STATES, verbose_errors: false, ..ParserLimits::default() };
        Ok(Self {
            factory,
            digit_tokens: Arc::new(DigitTokens::new(environment)),
            end_ids,
            cached: Mutex::default(),
            clock: AtomicU64::new(0),
        })
    }

    /// The initial state of an answer under `schema`.
    pub(crate) fn constraint(&self, schema: &Schema) -> Result<SchemaConstraint, Poison> {
        let grammar = self.grammar(schema).map_err(|reason| Poison { class: FailureClass::Schema, reason })?;
        Ok(self.begin(grammar))
    }

    /// The initial state of an answer that quotes a document. Its grammar is not cached, because another document has another one.
    ///
    /// # Errors
    /// A poison failure if the grammar exceeds a limit of the grammar library.
    pub(crate) fn quoting(&self, grammar: &SpanGrammar) -> Result<SchemaConstraint, Poison> {
        let refused =
            |e: &str| format!("the document cannot be quoted from: {}; shorten it, or write `strict: false`", in_short(e));
        let start = self.start(TopLevelGrammar::from_lark(grammar.lark().to_owned()), &refused);
        let start = start.map_err(|reason| Poison { class: FailureClass::TooLong, reason })?;
        Ok(self.begin(Arc::new(Grammar { start, used: 0.into(), is_exhausted: false.into() })))
    }

    fn begin(&self, grammar: Arc<Grammar>) -> SchemaConstraint {
        let (matcher, digit_tokens) = (grammar.start.clone(), self.digit_tokens.clone());
        SchemaConstraint { matcher, grammar, digits: DigitCounter::default(), digit_tokens, end_ids: self.end_ids.clone() }
    }

    /// Whether answers can be constrained to `schema`.
    ///
    /// # Errors
    /// One sentence that names the unsupported part of the schema.
    pub(crate) fn check(&self, schema: &Schema) -> Result<(), String> {
        self.grammar(schema).map(drop)
    }

    /// The number of cached grammars.
    #[cfg(test)]
    pub(super) fn cached(&self) -> usize {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether the schema's grammar is cached.
    #[cfg(test)]
    pub(super) fn holds(&self, schema: &Schema) -> bool {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner).contains_key(schema.text())
    }

    fn grammar(&self, schema: &Schema) -> Result<Arc<Grammar>, String> {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let cached = || self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(grammar) = cached().get(schema.text()).filter(|grammar| !grammar.is_exhausted.load(Ordering::Relaxed)) {
            grammar.used.store(now, Ordering::Relaxed);
            return Ok(grammar.clone());
        }
        let grammar = Arc::new(Grammar { start: self.compile(schema)?, used: now.into(), is_exhausted: false.into() });
        let mut cached = cached();
        if cached.len() >= MAX_GRAMMARS && !cached.contains_key(schema.text()) {
            let oldest = cached.iter().min_by_key(|(_, grammar)| grammar.used.load(Ordering::Relaxed));
            if let Some(text) = oldest.map(|(text, _)| text.clone()) {
                cached.remove(&text);
            }
        }
        cached.insert(schema.text().to_owned(), grammar.clone());
        Ok(grammar)
    }

    fn compile(&self, schema: &Schema) -> Result<Matcher, String> {
        if schema.text().len() > MAX_SCHEMA_BYTES {
            return Err(format!(
                "the schema has {} bytes and {MAX_SCHEMA_BYTES} is the limit; split it over several tasks",
                schema.text().len()
            ));
        }
        let refused = |e: &str| {
            format!(
                "answers cannot be held to the schema: {}; rewrite the schema without it, or leave the schema out",
                in_short(e)
            )
        };
        self.start(TopLevelGrammar::from_json_schema(grammar_schema(schema.standard()).map_err(|e| refused(&e))?), &refused)
    }

    /// The state before the first token. `refused` writes the error about the grammar.
    fn start(&self, grammar: TopLevelGrammar, refused: &dyn Fn(&str) -> String) -> Result<Matcher, String> {
        let compile = || {
            let start = Matcher::new(self.factory.create_parser(grammar));
            // A grammar that allows no answer, or exceeds the limits, fails at the first token.
            match start.get_error() {
                Some(error) => Err(refused(&error)),
                None => match start.clone().compute_mask() {
                    Ok(_) if !start.is_error() => Ok(start),
                    Ok(_) => Err(refused(&start.get_error().unwrap_or_default())),
                    Err(e) => Err(refused(&e.to_string())),
                },
            }
        };
        // A panic of the library must not end the program.
        let panicked = |panic: Box<dyn std::any::Any + Send>| refused(&panic_text(&*panic));
        catch_unwind(AssertUnwindSafe(compile)).map_err(panicked)?
    }
}

impl SchemaConstraint {
    /// The tokens that must come next, which the constraint records as accepted. Empty if there is a choice.
    pub(crate) fn forced(&mut self) -> Vec<u32> {
        let forced = if self.matcher.is_stopped() { Vec::new() } else { self.matcher.consume_ff_tokens() };
        forced.iter().for_each(|id| self.digits.read(self.digit_tokens.bytes(*id)));
        forced
    }

    /// The tokens that may come next: at least one. The tokens that end a turn are among them exactly if the answer is complete.
    pub(crate) fn mask(&mut self, allowed: &mut TokenMask) -> Result<(), Poison> {
        *allowed = self.matcher.compute_mask_or_eos().map_err(|e| self.failed(&e.to_string()))?;
        if self.digits.is_at_limit() {
            self.digit_tokens.end(allowed);
        }
        Ok(())
    }

    /// Records the chosen token.
    pub(crate) fn accept(&mut self, id: u32) -> Result<(), Poison> {
        if self.is_finished() && self.end_ids.contains(&id) {
            return Ok(());
        }
        self.matcher.consume_token(id).map_err(|e| self.failed(&e.to_string()))?;
        self.digits.read(self.digit_tokens.bytes(id));
        Ok(())
    }

    /// Whether only the end of the turn may follow.
    pub(crate) fn is_finished(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }

    /// Whether the answer is complete.
    #[cfg(test)]
    pub(crate) fn may_finish(&mut self) -> bool {
        self.is_finished() || self.matcher.is_accepting().unwrap_or(false)
    }

    fn failed(&self, error: &str) -> Poison {
        self.grammar.is_exhausted.store(true, Ordering::Relaxed);
        let reason = format!(
            "the answer could not be held to its schema: {}; limit the length of the schema's strings and lists",
            in_short(error)
        );
        Poison { class: FailureClass::Schema, reason }
    }
}

impl DigitTokens {
    fn new(environment: TokEnv) -> Self {
        let trie = environment.tok_trie();
        let (mut digits, mut zeros) = (trie.alloc_token_set(), trie.alloc_token_set());
        for id in 0..trie.vocab_size() as TokenId {
            let first = trie.token(id).first().copied();
            if first.is_some_and(|byte| byte.is_ascii_digit()) {
                digits.allow_token(id);
            }
            if first == Some(b'0') {
                zeros.allow_token(id);
            }
        }
        Self { environment, digits, zeros }
    }

    fn bytes(&self, id: TokenId) -> &[u8] {
        self.environment.tok_trie().token(id)
    }

    /// Disallows further digits if anything else is allowed; otherwise disallows zeros, so that the number can end after one more
    /// digit.
    fn end(&self, allowed: &mut TokenMask) {
        for further in [&self.digits, &self.zeros] {
            let mut left = allowed.clone();
            left.sub(further);
            if !left.is_zero() {
                *allowed = left;
                return;
            }
        }
    }
}

/// The library's error in one line, without its advice about its own options.
fn in_short(error: &str) -> String {
    let reason = error.lines().find_map(|line| line.strip_prefix("error: ")).or_else(|| error.lines().next()).unwrap_or_default();
    let reason = reason.split(". ").next().unwrap_or_default().trim_end_matches(['.', ' ']);
    match reason.strip_prefix("Unimplemented keys: ") {
        Some(keywords) => format!("the keywords {keywords} are not supported"),
        None => reason.replace("Unsatisfiable schema: ", "nothing satisfies it, for "),
    }
}

/// The vocabulary in the form that the grammar library needs.
struct TokenizerEnvironment {
    trie: TokTrie,
    /// Encodes text in the middle of an answer.
    tokenizer: Arc<Tokenizer>,
}

impl TokenizerEnvironment {
    fn new(definition: &TokenizerDefinition, vocabulary: usize, end_ids: &[u32]) -> Self {
        let mut words: Vec<Vec<u8>> = (0..vocabulary as u32).map(|id| definition.pieces.get(id).to_vec()).collect();
        // A string may spell an added token with ordinary tokens, but never contain the token.
        for token in definition.added.iter() {
            if let Some(word) = words.get_mut(token.id as usize) {
                word.clear();
            }
        }
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end_ids[0]), &words).with_eos_tokens(end_ids);
        let tokenizer = definition.continuing.as_ref().unwrap_or(&definition.plain).clone();
        Self { trie, tokenizer }
    }
}

impl TokenizerEnv for TokenizerEnvironment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| {
            let ids = encoding::encode_after(&self.tokenizer, text).unwrap_or_default();
            // If a normalizer changed the text, forced bytes are tokenized greedily instead.
            if self.trie.decode_raw(&ids) == text.as_bytes() { ids } else { self.trie.greedy_tokenize(text.as_bytes()) }
        })
    }
}
