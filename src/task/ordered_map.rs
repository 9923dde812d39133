//! Deserializes a map as a list of entries, in the order of the file.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

struct EntriesVisitor<V> {
    key_name: &'static str,
    expecting: &'static str,
    value: PhantomData<V>,
}

/// The entries of a map. A key that occurs twice is an error. `key_name` and `expecting` (what the map contains) are for messages.
pub(super) fn entries<'de, V: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
    key_name: &'static str,
    expecting: &'static str,
) -> Result<Vec<(String, V)>, D::Error> {
    deserializer.deserialize_map(EntriesVisitor { key_name, expecting, value: PhantomData })
}

impl<'de, V: Deserialize<'de>> Visitor<'de> for EntriesVisitor<V> {
    type Value = Vec<(String, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Vec<(String, V)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, V>()? {
            if entries.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom(format!("{} `{key}` occurs twice", self.key_name)));
            }
            entries.push((key, value));
        }
        Ok(entries)
    }
}
