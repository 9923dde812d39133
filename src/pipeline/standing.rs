//! Which record of each document stands: of those that are committed together and what the ledger knows, the greatest version, and of
//! equal ones the latest.

use std::collections::HashMap;
use std::sync::Arc;

use super::evaluator::Fate;
use crate::document::Decoded;
use crate::failure::Poison;
use crate::record::Record;
use crate::store::{KnownVersion, is_of_a_job};

/// For each document met so far the place of the record that stands, and the version known.
#[derive(Default)]
struct Standing(HashMap<Arc<str>, (Option<usize>, Option<i64>)>);

/// What a record brings.
struct Claim<'a> {
    id: &'a Arc<str>,
    version: Option<i64>,
    /// Whether it goes for whatever version is there.
    any: bool,
}

/// What comes of a claim.
enum Verdict {
    /// A newer version stands.
    Superseded,
    /// It stands with that version, in the place of an earlier record if there is one.
    Stands { version: Option<i64>, instead_of: Option<usize> },
}

impl Standing {
    fn judge(&mut self, place: usize, claim: &Claim<'_>, known: impl FnOnce() -> Option<i64>) -> Verdict {
        let (holder, version) = self.0.entry(claim.id.clone()).or_insert_with(|| (None, known()));
        if !claim.any && claim.version < *version {
            return Verdict::Superseded;
        }
        *version = claim.version.max(*version);
        Verdict::Stands { version: *version, instead_of: holder.replace(place) }
    }
}

/// The fates of records of one piece. Documents have no outcomes yet.
pub(super) fn sort_out(decoded: Vec<Result<Decoded, Poison>>, known: &HashMap<String, KnownVersion>) -> Vec<Fate> {
    let fate = |decoded| match decoded {
        Err(poison) => Fate::Dead(poison),
        Ok(Decoded::Document(document)) => Fate::Document(document, Vec::new()),
        Ok(Decoded::Tombstone { id, version }) => Fate::Deleted { id, version, any: version.is_none() },
    };
    let mut fates: Vec<Fate> = decoded.into_iter().map(fate).collect();
    settle(&mut fates, |id| known.get(id).map(|known| known.version));
    fates
}

/// Whether the record may bring back a document whose delete has the same version: it came after that delete. What a job reads was
/// there before, and a dead letter that is sent again may have been.
pub(super) fn revives(record: &Record) -> bool {
    record.replays() == 0 && !is_of_a_job(&record.place.partition.topic)
}

/// Takes out documents that would come back although they were deleted in that very version, before anything is asked for them. One
/// that is deleted later than this is kept out by the commit.
pub(super) fn withhold(records: &[Record], fates: &mut [Fate], known: &HashMap<String, KnownVersion>) {
    for (record, fate) in records.iter().zip(fates) {
        let Fate::Document(document, _) = fate else { continue };
        let ends = |known: &KnownVersion| known.deleted && known.version == document.version;
        if known.get(&*document.id).is_some_and(ends) && !revives(record) {
            *fate = Fate::Superseded;
        }
    }
}

/// Puts the fates of the next piece of a batch behind those of the pieces before it, which its evaluation did not see.
pub(super) fn join(fates: &mut Vec<Fate>, next: Vec<Fate>) {
    fates.extend(next);
    settle(fates, |_| None);
}

fn settle(fates: &mut [Fate], known: impl Fn(&str) -> Option<i64>) {
    let mut standing = Standing::default();
    for place in 0..fates.len() {
        let claim = match &fates[place] {
            Fate::Dead(_) | Fate::Superseded => continue,
            Fate::Document(document, _) => Claim { id: &document.id, version: Some(document.version), any: false },
            Fate::Deleted { id, version, any } => Claim { id, version: *version, any: *any },
            Fate::Outlived { id } => Claim { id, version: None, any: true },
        };
        match standing.judge(place, &claim, || known(claim.id)) {
            Verdict::Superseded => supersede(&mut fates[place]),
            Verdict::Stands { version, instead_of } => {
                if let Claim { id, any: true, .. } = claim {
                    fates[place] = Fate::Deleted { id: id.clone(), version, any: true };
                }
                instead_of.into_iter().for_each(|earlier| supersede(&mut fates[earlier]));
            }
        }
    }
}

/// Another record stands. What outlives a delete of any version in its own piece may not in the whole batch, so it is remembered.
fn supersede(fate: &mut Fate) {
    *fate = match std::mem::replace(fate, Fate::Superseded) {
        Fate::Deleted { id, any: true, .. } => Fate::Outlived { id },
        _ => Fate::Superseded,
    };
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::document::Document;
    use crate::failure::FailureClass;
    use crate::record::{Header, Partition, Place, REPLAY_COUNT};

    fn document(id: &str, version: i64) -> Result<Decoded, Poison> {
        let (metadata, fields) = (Map::new(), Map::new());
        Ok(Decoded::Document(Document { id: id.into(), version, text: "text".into(), metadata, fields }))
    }

    fn tombstone(id: &str, version: Option<i64>) -> Result<Decoded, Poison> {
        Ok(Decoded::Tombstone { id: id.into(), version })
    }

    fn known(known: &[(&str, i64)]) -> HashMap<String, KnownVersion> {
        known.iter().map(|&(id, version)| (id.to_owned(), KnownVersion { version, deleted: false })).collect()
    }

    fn record(topic: &str, replays: &'static str) -> Record {
        let place = Place { partition: Partition { topic: topic.into(), number: 0 }, offset: 0 };
        let header = Header { name: REPLAY_COUNT.into(), value: Some(replays.into()) };
        Record { place, timestamp_ms: None, key: None, payload: None, headers: vec![header] }
    }

    #[test]
    fn only_what_the_stream_brings_brings_back_a_document_in_the_version_of_its_delete() {
        let deleted = HashMap::from([("a".to_owned(), KnownVersion { version: 5, deleted: true })]);
        for (record, version, stays) in [
            (record("documents", "0"), 5, true),
            (record("documents", "1"), 5, false),
            (record("job:rerun-1", "0"), 5, false),
            (record("job:rerun-1", "0"), 6, true),
        ] {
            let mut fates = sort_out(vec![document("a", version), document("b", 5)], &deleted);
            withhold(&[record.clone(), record.clone()], &mut fates, &deleted);
            let told = if stays { format!("document {version}") } else { "superseded".to_owned() };
            assert_eq!(named(&fates), [told, "document 5".to_owned()], "{record:?} in version {version}");
        }
    }

    fn named(fates: &[Fate]) -> Vec<String> {
        let name = |fate: &Fate| match fate {
            Fate::Dead(_) => "dead".to_owned(),
            Fate::Superseded | Fate::Outlived { .. } => "superseded".to_owned(),
            Fate::Deleted { version, any, .. } => format!("deleted {version:?}{}", if *any { " or any" } else { "" }),
            Fate::Document(document, _) => format!("document {}", document.version),
        };
        fates.iter().map(name).collect()
    }

    fn fates(records: Vec<Result<Decoded, Poison>>, ledger: &[(&str, i64)]) -> Vec<String> {
        named(&sort_out(records, &known(ledger)))
    }

    #[test]
    fn the_greatest_version_stands_and_of_equal_ones_the_latest() {
        assert_eq!(fates(vec![document("a", 2), document("a", 1)], &[]), ["document 2", "superseded"]);
        assert_eq!(fates(vec![document("a", 1), document("a", 2)], &[]), ["superseded", "document 2"]);
        assert_eq!(fates(vec![document("a", 2), document("a", 2)], &[]), ["superseded", "document 2"]);
        assert_eq!(fates(vec![document("a", 2), document("b", 2)], &[("a", 3), ("b", 2)]), ["superseded", "document 2"]);
    }

    #[test]
    fn a_delete_without_a_version_ends_whatever_is_there() {
        assert_eq!(fates(vec![tombstone("a", None)], &[]), ["deleted None or any"]);
        assert_eq!(fates(vec![tombstone("a", None)], &[("a", 7)]), ["deleted Some(7) or any"]);
        let batch = vec![document("a", 8), tombstone("a", None), document("a", 7)];
        assert_eq!(fates(batch, &[("a", 7)]), ["superseded", "deleted Some(8) or any", "superseded"]);
        assert_eq!(fates(vec![tombstone("a", Some(6))], &[("a", 7)]), ["superseded"]);
        assert_eq!(fates(vec![tombstone("a", Some(7))], &[("a", 7)]), ["deleted Some(7)"]);
    }

    #[test]
    fn pieces_come_out_as_if_they_had_been_one() {
        let poison = || Err(Poison { class: FailureClass::Model, reason: "no".to_owned() });
        let ledger = [("a", 7), ("b", 1)];
        let records = [
            document("a", 8),
            document("b", 0),
            poison(),
            document("c", 1),
            tombstone("a", None),
            document("a", 7),
            document("c", 1),
            tombstone("d", None),
            document("a", 9),
            document("a", 8),
            tombstone("c", Some(0)),
        ];
        let whole = fates(records.to_vec(), &ledger);
        assert_eq!(whole[8..], ["document 9", "superseded", "superseded"]);
        for middle in 0..=records.len() {
            let (first, second) = records.split_at(middle);
            let mut fates = sort_out(first.to_vec(), &known(&ledger));
            join(&mut fates, sort_out(second.to_vec(), &known(&ledger)));
            assert_eq!(named(&fates), whole, "cut at {middle}");
        }
    }
}
