//! Which record of each document stands: of those that are committed together and what the ledger knows, the greatest version, and of
//! equal ones the latest.

use std::collections::HashMap;
use std::sync::Arc;

use super::evaluator::RecordOutcome;
use crate::document::DecodedRecord;
use crate::failure::Poison;
use crate::record::Record;
use crate::store::{StoredVersion, is_job_topic};

/// For each document met so far the place of the record that stands, and the version known.
#[derive(Default)]
struct VersionResolver(HashMap<Arc<str>, (Option<usize>, Option<i64>)>);

/// What a record brings.
struct VersionClaim<'a> {
    id: &'a Arc<str>,
    version: Option<i64>,
    /// Whether it goes for whatever version is there.
    any: bool,
}

/// What comes of a claim.
enum VersionDecision {
    /// A newer version stands.
    Superseded,
    /// It stands with that version, in the place of an earlier record if there is one.
    Stands { version: Option<i64>, instead_of: Option<usize> },
}

impl VersionResolver {
    fn judge(&mut self, place: usize, claim: &VersionClaim<'_>, known: impl FnOnce() -> Option<i64>) -> VersionDecision {
        let (holder, version) = self.0.entry(claim.id.clone()).or_insert_with(|| (None, known()));
        if !claim.any && claim.version < *version {
            return VersionDecision::Superseded;
        }
        *version = claim.version.max(*version);
        VersionDecision::Stands { version: *version, instead_of: holder.replace(place) }
    }
}

/// The fates of records of one piece. Documents have no outcomes yet.
pub(super) fn sort_out(
    decoded: Vec<Result<DecodedRecord, Poison>>,
    known: &HashMap<String, StoredVersion>,
) -> Vec<RecordOutcome> {
    let record_outcome = |decoded| match decoded {
        Err(poison) => RecordOutcome::Dead(poison),
        Ok(DecodedRecord::Document(document)) => RecordOutcome::Document(document, Vec::new()),
        Ok(DecodedRecord::Tombstone { id, version }) => RecordOutcome::Deleted { id, version, any: version.is_none() },
    };
    let mut record_outcomes: Vec<RecordOutcome> = decoded.into_iter().map(record_outcome).collect();
    settle(&mut record_outcomes, |id| known.get(id).map(|known| known.version));
    record_outcomes
}

/// Whether the record may bring back a document whose delete has the same version: it came after that delete. What a job reads was
/// there before, and a dead letter that is sent again may have been.
pub(super) fn revives(record: &Record) -> bool {
    record.replays() == 0 && !is_job_topic(&record.place.partition.topic)
}

/// Takes out documents that would come back although they were deleted in that very version, before anything is asked for them. One
/// that is deleted later than this is kept out by the commit.
pub(super) fn withhold(records: &[Record], record_outcomes: &mut [RecordOutcome], known: &HashMap<String, StoredVersion>) {
    for (record, record_outcome) in records.iter().zip(record_outcomes) {
        let RecordOutcome::Document(document, _) = record_outcome else { continue };
        let ends = |known: &StoredVersion| known.deleted && known.version == document.version;
        if known.get(&*document.id).is_some_and(ends) && !revives(record) {
            *record_outcome = RecordOutcome::Superseded;
        }
    }
}

/// Puts the fates of the next piece of a batch behind those of the pieces before it, which its evaluation did not see.
pub(super) fn join(record_outcomes: &mut Vec<RecordOutcome>, next: Vec<RecordOutcome>) {
    record_outcomes.extend(next);
    settle(record_outcomes, |_| None);
}

fn settle(record_outcomes: &mut [RecordOutcome], known: impl Fn(&str) -> Option<i64>) {
    let mut standing = VersionResolver::default();
    for place in 0..record_outcomes.len() {
        let claim = match &record_outcomes[place] {
            RecordOutcome::Dead(_) | RecordOutcome::Superseded => continue,
            RecordOutcome::Document(document, _) => {
                VersionClaim { id: &document.id, version: Some(document.version), any: false }
            }
            RecordOutcome::Deleted { id, version, any } => VersionClaim { id, version: *version, any: *any },
            RecordOutcome::Outlived { id } => VersionClaim { id, version: None, any: true },
        };
        match standing.judge(place, &claim, || known(claim.id)) {
            VersionDecision::Superseded => supersede(&mut record_outcomes[place]),
            VersionDecision::Stands { version, instead_of } => {
                if let VersionClaim { id, any: true, .. } = claim {
                    record_outcomes[place] = RecordOutcome::Deleted { id: id.clone(), version, any: true };
                }
                instead_of.into_iter().for_each(|earlier| supersede(&mut record_outcomes[earlier]));
            }
        }
    }
}

/// Another record stands. What outlives a delete of any version in its own piece may not in the whole batch, so it is remembered.
fn supersede(record_outcome: &mut RecordOutcome) {
    *record_outcome = match std::mem::replace(record_outcome, RecordOutcome::Superseded) {
        RecordOutcome::Deleted { id, any: true, .. } => RecordOutcome::Outlived { id },
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
            let mut record_outcomes = sort_out(vec![document("a", version), document("b", 5)], &deleted);
            withhold(&[record.clone(), record.clone()], &mut record_outcomes, &deleted);
            let told = if stays { format!("document {version}") } else { "superseded".to_owned() };
            assert_eq!(named(&record_outcomes), [told, "document 5".to_owned()], "{record:?} in version {version}");
        }
    }

    fn named(record_outcomes: &[RecordOutcome]) -> Vec<String> {
        let name = |record_outcome: &RecordOutcome| match record_outcome {
            RecordOutcome::Dead(_) => "dead".to_owned(),
            RecordOutcome::Superseded | RecordOutcome::Outlived { .. } => "superseded".to_owned(),
            RecordOutcome::Deleted { version, any, .. } => format!("deleted {version:?}{}", if *any { " or any" } else { "" }),
            RecordOutcome::Document(document, _) => format!("document {}", document.version),
        };
        record_outcomes.iter().map(name).collect()
    }

    fn record_outcomes(records: Vec<Result<DecodedRecord, Poison>>, ledger: &[(&str, i64)]) -> Vec<String> {
        named(&sort_out(records, &known(ledger)))
    }

    #[test]
    fn the_greatest_version_stands_and_of_equal_ones_the_latest() {
        assert_eq!(record_outcomes(vec![document("a", 2), document("a", 1)], &[]), ["document 2", "superseded"]);
        assert_eq!(record_outcomes(vec![document("a", 1), document("a", 2)], &[]), ["superseded", "document 2"]);
        assert_eq!(record_outcomes(vec![document("a", 2), document("a", 2)], &[]), ["superseded", "document 2"]);
        assert_eq!(
            record_outcomes(vec![document("a", 2), document("b", 2)], &[("a", 3), ("b", 2)]),
            ["superseded", "document 2"]
        );
    }

    #[test]
    fn a_delete_without_a_version_ends_whatever_is_there() {
        assert_eq!(record_outcomes(vec![tombstone("a", None)], &[]), ["deleted None or any"]);
        assert_eq!(record_outcomes(vec![tombstone("a", None)], &[("a", 7)]), ["deleted Some(7) or any"]);
        let batch = vec![document("a", 8), tombstone("a", None), document("a", 7)];
        assert_eq!(record_outcomes(batch, &[("a", 7)]), ["superseded", "deleted Some(8) or any", "superseded"]);
        assert_eq!(record_outcomes(vec![tombstone("a", Some(6))], &[("a", 7)]), ["superseded"]);
        assert_eq!(record_outcomes(vec![tombstone("a", Some(7))], &[("a", 7)]), ["deleted Some(7)"]);
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
        let whole = record_outcomes(records.to_vec(), &ledger);
        assert_eq!(whole[8..], ["document 9", "superseded", "superseded"]);
        for middle in 0..=records.len() {
            let (first, second) = records.split_at(middle);
            let mut record_outcomes = sort_out(first.to_vec(), &known(&ledger));
            join(&mut record_outcomes, sort_out(second.to_vec(), &known(&ledger)));
            assert_eq!(named(&record_outcomes), whole, "cut at {middle}");
        }
    }
}
