//! Every failure of a task is of one of two kinds.
//!
//! | failure | cause | consequence |
//! |---|---|---|
//! | [`Failure::Poison`] | the input: it fails whenever it is tried | a dead letter, and the stream goes on |
//! | [`Failure::Transient`] | a component: the same input may succeed later | the stream pauses and retries; the position does not advance |

use std::fmt;

use crate::did_you_mean::suggestion;

/// Why a task produced no output.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// The input is at fault.
    #[error(transparent)]
    Poison(#[from] Poison),
    /// A component is at fault.
    #[error(transparent)]
    Transient(#[from] Transient),
}

/// An input that fails however often it is tried. Kafka users call it a poison pill.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {reason}")]
pub struct Poison {
    /// The class of fault; also a label of the dead-letter metric.
    pub class: FailureClass,
    /// One sentence that says what is wrong, where in the document, and how to fix it.
    pub reason: String,
}

/// A component that is unavailable at present.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{component}: {reason}")]
pub struct Transient {
    pub component: Component,
    /// One sentence for `/readyz` and the log.
    pub reason: String,
    /// Whether the component is available but refused a value. The caller is at fault, and a retry does not help.
    pub is_refusal: bool,
}

impl Transient {
    /// The component is unavailable.
    pub fn new(component: Component, reason: impl Into<String>) -> Self {
        Self { component, reason: reason.into(), is_refusal: false }
    }
}

/// How many dead letters a pipeline tolerates. With more it stops, so that one fault does not turn a whole topic into dead letters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// The pipeline stops if dead letters of one class exceed this share of the last records. 1 is never exceeded.
    pub share: f64,
    /// How many of the last records are counted.
    pub window: u32,
}

impl Tolerance {
    /// A share is computed only over this number of records or more, or over the window if that is smaller.
    pub const LEAST_RECORDS: u32 = 100;

    /// Whether `dead` dead letters among the last `records` are too many.
    pub fn is_exceeded(&self, dead: i64, records: i64) -> bool {
        records >= i64::from(self.window.min(Self::LEAST_RECORDS)) && dead as f64 > self.share * records as f64
    }
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { share: 0.2, window: 1000 }
    }
}

impl Failure {
    /// A failure of the input.
    pub fn poison(class: FailureClass, reason: impl Into<String>) -> Self {
        Self::Poison(Poison { class, reason: reason.into() })
    }

    /// A failure of a component that is unavailable.
    pub fn transient(component: Component, reason: impl Into<String>) -> Self {
        Self::Transient(Transient::new(component, reason))
    }
}

macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every value, in order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in tables, topics and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

named! {
    /// The classes of poison. Stored in `dead_letters.class`: add, never rename.
    FailureClass {
        /// The payload is not JSON.
        MalformedJson = "malformed_json",
        /// The payload is not Avro, or does not fit its schema, or the schema is not Avro.
        MalformedAvro = "malformed_avro",
        /// The payload names a schema that the registry does not know.
        UnknownSchema = "unknown_schema",
        /// The payload, the key or a header that the pipeline reads is not UTF-8.
        InvalidUtf8 = "invalid_utf8",
        /// A string holds U+0000, which Postgres cannot store.
        NulCharacter = "nul_character",
        /// A field that the pipeline needs is absent or null.
        MissingField = "missing_field",
        /// A field has another type than the pipeline needs.
        WrongType = "wrong_type",
        /// The payload is larger than the pipeline's limit.
        TooLarge = "too_large",
        /// The payload is nested deeper than the limit.
        TooDeep = "too_deep",
        /// The document has no text.
        EmptyText = "empty_text",
        /// A delete has no key, so that it names no document.
        MissingKey = "missing_key",
        /// A template of the pipeline fails on this document.
        Template = "template",
        /// The model refuses this input, or its answer is not a valid output.
        Model = "model",
        /// The prompt is longer than the model's context.
        TooLong = "too_long",
        /// The answer reached its token limit before it was complete.
        Truncated = "truncated",
        /// The answer is not valid under its JSON Schema.
        Schema = "schema",
        /// A record of the jobs topic is not a valid job.
        InvalidJob = "invalid_job",
        /// The answer has a string that is not in the document.
        Ungrounded = "ungrounded",
        /// The process died several times while it evaluated this record alone.
        KilledProcess = "killed_process",
    }
}

named! {
    /// The components that a pipeline depends on. Each has its own line on `/readyz`.
    Component {
        Database = "database",
        Broker = "broker",
        /// The registry of Avro schemas.
        Registry = "registry",
        Model = "model",
        /// The local disk or object storage of datasets.
        Storage = "storage",
    }
}

impl FailureClass {
    /// The class of that name.
    ///
    /// # Errors
    /// A sentence with the most similar name, where there is no such class.
    pub fn named(name: &str) -> Result<Self, String> {
        let names = Self::ALL.iter().map(|class| class.as_str());
        let found = Self::ALL.iter().copied().find(|class| class.as_str() == name);
        found.ok_or_else(|| format!("`{name}` is not a class of dead letters; {}", suggestion(name, names)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_exceeded_only_above_it_and_only_among_enough_records() {
        let tolerance = Tolerance { share: 0.2, window: 1000 };
        assert!(!tolerance.is_exceeded(99, 99), "99 records are too few to tell");
        assert!(!tolerance.is_exceeded(20, 100), "exactly the share is tolerated");
        assert!(tolerance.is_exceeded(21, 100));
        assert!(!tolerance.is_exceeded(200, 1000) && tolerance.is_exceeded(201, 1000));
    }

    #[test]
    fn a_window_smaller_than_the_least_is_enough_by_itself() {
        let tolerance = Tolerance { share: 0.5, window: 10 };
        assert!(!tolerance.is_exceeded(9, 9) && tolerance.is_exceeded(6, 10));
    }

    #[test]
    fn the_whole_is_never_exceeded() {
        assert!(!Tolerance { share: 1.0, window: 1000 }.is_exceeded(1000, 1000));
    }
}
