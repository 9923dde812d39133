//! The one question every error must answer: is it the record's fault, or the world's?
//!
//! | failure | whose fault | what follows |
//! |---|---|---|
//! | [`Failure::Poison`] | the record's: the same input fails again | a dead letter, and the stream goes on |
//! | [`Failure::Transient`] | the world's: the same input may succeed later | the stream pauses and retries; the position never advances |

use std::fmt;

use crate::did_you_mean::suggestion;

/// Why a unit of work did not produce an output.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// The input itself is at fault.
    #[error(transparent)]
    Poison(#[from] Poison),
    /// Something outside the input is at fault.
    #[error(transparent)]
    Transient(#[from] Transient),
}

/// An input that fails however often it is tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {reason}")]
pub struct Poison {
    /// What kind of fault; the label of the dead-letter metric.
    pub class: FailureClass,
    /// One sentence: the thing, the place in the document and the mend.
    pub reason: String,
}

/// A part of the world that is out of order for now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{component}: {reason}")]
pub struct Transient {
    /// Which part.
    pub component: Component,
    /// One sentence for `/readyz` and the log.
    pub reason: String,
    /// Whether the component is available and refused a value that it was given. The caller is at fault; a retry does not help.
    pub is_refusal: bool,
}

impl Transient {
    /// The component is unavailable.
    pub fn new(component: Component, reason: impl Into<String>) -> Self {
        Self { component, reason: reason.into(), is_refusal: false }
    }
}

/// How many records may die before a pipeline stops instead of emptying its topic into the dead letters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// The share of one class among the last records, above which the pipeline stops; 1 is never exceeded.
    pub share: f64,
    /// How many of the last records are looked at.
    pub window: u32,
}

impl Tolerance {
    /// Records that must be there before a share of them says anything; a smaller window needs itself.
    pub const LEAST_RECORDS: u32 = 100;

    /// Whether `dead` of the last `records` are too many.
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
    /// A poison failure of `class`.
    pub fn poison(class: FailureClass, reason: impl Into<String>) -> Self {
        Self::Poison(Poison { class, reason: reason.into() })
    }

    /// A transient failure of `component`.
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

            /// The name as it stands in tables, topics and metrics.
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
        /// The payload, the key or a header that is read is not UTF-8.
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
        /// There is no text to work on.
        EmptyText = "empty_text",
        /// A delete without a key, which names no document.
        MissingKey = "missing_key",
        /// A template of the pipeline fails on this document.
        Template = "template",
        /// The model refuses this input or answers with something that is no output.
        Model = "model",
        /// The prompt is longer than the model's context.
        TooLong = "too_long",
        /// The answer reached its limit of tokens before it was whole.
        Truncated = "truncated",
        /// The answer is not valid under its schema.
        Schema = "schema",
        /// A record of the jobs topic that asks for no job that there can be.
        InvalidJob = "invalid_job",
        /// The answer holds a string that the document does not.
        Ungrounded = "ungrounded",
        /// The process ended, time and again, while this record alone was under way.
        KilledProcess = "killed_process",
    }
}

named! {
    /// The parts of the world that a pipeline leans on; each has its own line on `/readyz`.
    Component {
        /// Postgres.
        Database = "database",
        /// Kafka.
        Broker = "broker",
        /// The registry of Avro schemas.
        Registry = "registry",
        /// The model host.
        Model = "model",
        /// Local disk or object storage that datasets are written to.
        Storage = "storage",
    }
}

impl FailureClass {
    /// The class of that name.
    ///
    /// # Errors
    /// Half a sentence with the nearest name, where there is none.
    pub fn named(name: &str) -> Result<Self, String> {
        let names = Self::ALL.iter().map(|class| class.as_str());
        let found = Self::ALL.iter().copied().find(|class| class.as_str() == name);
        found.ok_or_else(|| format!("`{name}` is no class of dead letters; {}", suggestion(name, names)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_exceeded_only_above_it_and_only_among_enough_records() {
        let tolerance = Tolerance { share: 0.2, window: 1000 };
        assert!(!tolerance.is_exceeded(99, 99), "99 records are too few to tell");
        assert!(!tolerance.is_exceeded(20, 100), "exactly the share is borne");
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
