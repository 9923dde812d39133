//! Which record of each document wins: of the records that are committed together and the version in the ledger, the one with the
//! greatest version, and of equal versions the last.

use std::collections::HashMap;
use std::sync::Arc;

use super::record_outcome::RecordOutcome;
use crate::document::DecodedRecord;
use crate::failure::Poison;
use crate::record::Record;
use crate::store::{StoredVersion, is_job_topic};

/// For each document met so far, the index of the record that wins and the greatest version known.
#[derive(Default)]
struct VersionResolver(HashMap<Arc<str>, (Option<usize>, Option<i64>)>);

/// The version that a record brings or deletes.
struct VersionClaim<'a> {
    id: &'a Arc<str>,
    version: Option<i64>,
    /// Whether it applies whatever version is stored.
    any_version: bool,
}

enum VersionDecision {
    /// A newer version wins.
    Superseded,
    /// The record wins with this version, and the record at `replaced`, if any, no longer does.
    Wins { version: Option<i64>, replaced: Option<usize> },
}

impl VersionResolver {
    fn decide(&mut self, index: usize, claim: &VersionClaim<'_>, known: impl FnOnce() -> Option<i64>) -> VersionDecision {
        let (winner, version) = self.0.entry(claim.id.clone()).or_insert_with(|| (None, known()));
        if !claim.any_version && claim.version < *version {
            return VersionDecision::Superseded;
        }
        *version = claim.version.max(*version);
        VersionDecision::Wins { version: *version, replaced: winner.replace(index) }
    }
}

/// The outcomes of the records of one part of a batch. Documents have no task outcomes yet.
pub(super) fn sort_out(
    decoded: Vec<Result<DecodedRecord, Poison>>,
    known: &HashMap<String, StoredVersion>,
) -> Vec<RecordOutcome> {
    let outcome = |decoded| match decoded {
        Err(poison) => RecordOutcome::Dead(poison),
        Ok(DecodedRecord::Document(document)) => RecordOutcome::Document(document, Vec::new()),
        Ok(DecodedRecord::Tombstone { id, version }) => RecordOutcome::Deleted { id, version, any_version: version.is_none() },
    };
    let mut outcomes: Vec<RecordOutcome> = decoded.into_iter().map(outcome).collect();
    resolve(&mut outcomes, |id| known.get(id).map(|known| known.version));
    outcomes
}

/// Whether the record may bring back a document whose delete has the same version, because it came after that delete. The rows of a
/// job were there before the delete, and a replayed dead letter may have been.
pub(super) fn revives(record: &Record) -> bool {
    record.replays() == 0 && !is_job_topic(&record.place.partition.topic)
}

/// Marks documents as superseded that were deleted in the same version and may not come back, before any model is asked about them.
/// The commit keeps out documents that are deleted later than this.
pub(super) fn withhold(records: &[Record], outcomes: &mut [RecordOutcome], known: &HashMap<String, StoredVersion>) {
    for (record, outcome) in records.iter().zip(outcomes) {
        let RecordOutcome::Document(document, _) = outcome else { continue };
        let is_deleted = |known: &StoredVersion| known.deleted && known.version == document.version;
        if known.get(&*document.id).is_some_and(is_deleted) && !revives(record) {
            *outcome = RecordOutcome::Superseded;
        }
    }
}

/// Appends the outcomes of the next part of a batch, whose evaluation did not see the parts before it.
pub(super) fn join(outcomes: &mut Vec<RecordOutcome>, next: Vec<RecordOutcome>) {
    outcomes.extend(next);
    resolve(outcomes, |_| None);
}

fn resolve(outcomes: &mut [RecordOutcome], known: impl Fn(&str) -> Option<i64>) {
    let mut resolver = VersionResolver::default();
    for index in 0..outcomes.len() {
        let claim = match &outcomes[index] {
            RecordOutcome::Dead(_) | RecordOutcome::Superseded => continue,
            RecordOutcome::Document(document, _) => {
                VersionClaim { id: &document.id, version: Some(document.version), any_version: false }
            }
            RecordOutcome::Deleted { id, version, any_version } => {
                VersionClaim { id, version: *version, any_version: *any_version }
            }
            RecordOutcome::SupersededDelete { id } => VersionClaim { id, version: None, any_version: true },
        };
        match resolver.decide(index, &claim, || known(claim.id)) {
            VersionDecision::Superseded => supersede(&mut outcomes[index]),
            VersionDecision::Wins { version, replaced } => {
                if let VersionClaim { id, any_version: true, .. } = claim {
                    outcomes[index] = RecordOutcome::Deleted { id: id.clone(), version, any_version: true };
                }
                replaced.into_iter().for_each(|earlier| supersede(&mut outcomes[earlier]));
            }
        }
    }
}

/// Another record wins. A delete of any version is remembered as such: the record that wins over it in its own part may lose in the
/// whole batch.
fn supersede(outcome: &mut RecordOutcome) {
    *outcome = match std::mem::replace(outcome, RecordOutcome::Superseded) {
        RecordOutcome::Deleted { id, any_version: true, .. } => RecordOutcome::SupersededDelete { id },
        _ => RecordOutcome::Superseded,
    };
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::document::Document;
    use crate::failure::FailureClass;
    use crate::record::{Header, Partition, REPLAY_COUNT, RecordLocation};

    fn document(id: &str, version: i64) -> Result<DecodedRecord, Poison> {
        let (metadata, fields) = (Map::new(), Map::new());
        Ok(DecodedRecord::Document(Document { id: id.into(), version, text: "text".into(), metadata, fields }))
    }

    fn tombstone(id: &str, version: Option<i64>) -> Result<DecodedRecord, Poison> {
        Ok(DecodedRecord::Tombstone { id: id.into(), version })
    }

    fn known(known: &[(&str, i64)]) -> HashMap<String, StoredVersion> {
        known.iter().map(|&(id, version)| (id.to_owned(), StoredVersion { version, deleted: false })).collect()
    }

    fn record(topic: &str, replays: &'static str) -> Record {
        let place = RecordLocation { partition: Partition { topic: topic.into(), number: 0 }, offset: 0 };
        let header = Header { name: REPLAY_COUNT.into(), value: Some(replays.into()) };
        Record { place, timestamp_ms: None, key: None, payload: None, headers: vec![header] }
    }

    #[test]
    fn only_what_the_stream_brings_brings_back_a_document_in_the_version_of_its_delete() {
        let deleted = HashMap::from([("a".to_owned(), StoredVersion { version: 5, deleted: true })]);
        for (record, version, stays) in [
            (record("documents", "0"), 5, true),
            (record("documents", "1"), 5, false),
            (record("job:rerun-1", "0"), 5, false),
            (record("job:rerun-1", "0"), 6, true),
        ] {
            let mut outcomes = sort_out(vec![document("a", version), document("b", 5)], &deleted);
            withhold(&[record.clone(), record.clone()], &mut outcomes, &deleted);
            let expected = if stays { format!("document {version}") } else { "superseded".to_owned() };
            assert_eq!(named(&outcomes), [expected, "document 5".to_owned()], "{record:?} in version {version}");
        }
    }

    fn named(outcomes: &[RecordOutcome]) -> Vec<String> {
        let name = |outcome: &RecordOutcome| match outcome {
            RecordOutcome::Dead(_) => "dead".to_owned(),
            RecordOutcome::Superseded | RecordOutcome::SupersededDelete { .. } => "superseded".to_owned(),
            RecordOutcome::Deleted { version, any_version, .. } => {
                format!("deleted {version:?}{}", if *any_version { " or any" } else { "" })
            }
            RecordOutcome::Document(document, _) => format!("document {}", document.version),
        };
        outcomes.iter().map(name).collect()
    }

    fn outcomes(records: Vec<Result<DecodedRecord, Poison>>, ledger: &[(&str, i64)]) -> Vec<String> {
        named(&sort_out(records, &known(ledger)))
    }

    #[test]
    fn the_greatest_version_stands_and_of_equal_ones_the_latest() {
        assert_eq!(outcomes(vec![document("a", 2), document("a", 1)], &[]), ["document 2", "superseded"]);
        assert_eq!(outcomes(vec![document("a", 1), document("a", 2)], &[]), ["superseded", "document 2"]);
        assert_eq!(outcomes(vec![document("a", 2), document("a", 2)], &[]), ["superseded", "document 2"]);
        assert_eq!(outcomes(vec![document("a", 2), document("b", 2)], &[("a", 3), ("b", 2)]), ["superseded", "document 2"]);
    }

    #[test]
    fn a_delete_without_a_version_ends_whatever_is_there() {
        assert_eq!(outcomes(vec![tombstone("a", None)], &[]), ["deleted None or any"]);
        assert_eq!(outcomes(vec![tombstone("a", None)], &[("a", 7)]), ["deleted Some(7) or any"]);
        let batch = vec![document("a", 8), tombstone("a", None), document("a", 7)];
        assert_eq!(outcomes(batch, &[("a", 7)]), ["superseded", "deleted Some(8) or any", "superseded"]);
        assert_eq!(outcomes(vec![tombstone("a", Some(6))], &[("a", 7)]), ["superseded"]);
        assert_eq!(outcomes(vec![tombstone("a", Some(7))], &[("a", 7)]), ["deleted Some(7)"]);
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
        let whole = outcomes(records.to_vec(), &ledger);
        assert_eq!(whole[8..], ["document 9", "superseded", "superseded"]);
        for middle in 0..=records.len() {
            let (first, second) = records.split_at(middle);
            let mut outcomes = sort_out(first.to_vec(), &known(&ledger));
            join(&mut outcomes, sort_out(second.to_vec(), &known(&ledger)));
            assert_eq!(named(&outcomes), whole, "cut at {middle}");
        }
    }
}
