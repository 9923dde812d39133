//! Labels and their descriptions, in the order of the pipeline file.

use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Labels in order, each with its descriptions. A pipeline file has one description or a list of descriptions per label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Labels(pub Vec<(String, Vec<String>)>);

struct Descriptions(Vec<String>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from label to description")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels: Vec<(String, Vec<String>)> = Vec::new();
                while let Some((label, Descriptions(descriptions))) = map.next_entry::<String, Descriptions>()? {
                    if labels.iter().any(|(known, _)| *known == label) {
                        return Err(A::Error::custom(format!("label `{label}` occurs twice")));
                    }
                    labels.push((label, descriptions));
                }
                Ok(Labels(labels))
            }
        }

        deserializer.deserialize_map(Entries)
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
