//! Labels and their descriptions, in the order of the pipeline file.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::ordered_map::entries;

/// Labels in order, each with its descriptions. A pipeline file has one description or a list of descriptions per label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Labels(pub Vec<(String, Vec<String>)>);

struct Descriptions(Vec<String>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = entries::<Descriptions, D>(deserializer, "label", "a map from label to description")?;
        Ok(Self(entries.into_iter().map(|(label, Descriptions(descriptions))| (label, descriptions)).collect()))
    }
}

impl<'de> Deserialize<'de> for Descriptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Descriptions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a description or a list of descriptions")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Descriptions, E> {
                Ok(Descriptions(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Descriptions, A::Error> {
                let mut all = Vec::new();
                while let Some(description) = seq.next_element()? {
                    all.push(description);
                }
                Ok(Descriptions(all))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}
