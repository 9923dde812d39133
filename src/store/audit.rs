//! The invariants of the ledger, as queries that find violations. A sound ledger has none.

use sqlx::Row;

use super::{Store, unavailable};
use tidemill_base::failure::Transient;

/// Each query returns one text column, with one sentence per violation.
const CHECKS: &[&str] = &[
    // Batches, and the gaps that operators skipped, cover seed..next_offset without overlap.
    "SELECT format('%s %s[%s]: a batch or a gap starts at %s where the one before ended at %s', pipeline, topic, partition, from_offset, previous)
     FROM (SELECT t.*, coalesce(lag(t.to_offset) OVER w, p.seed_offset) AS previous
           FROM (SELECT pipeline, topic, partition, from_offset, to_offset FROM batches
                 UNION ALL SELECT pipeline, topic, partition, from_offset, to_offset FROM gaps) t
           JOIN positions p USING (pipeline, topic, partition)
           WINDOW w AS (PARTITION BY t.pipeline, t.topic, t.partition ORDER BY t.from_offset)) t
     WHERE from_offset <> previous",
    "SELECT format('%s %s[%s]: the position is %s, but its batches and gaps end at %s', pipeline, topic, partition, next_offset, reached)
     FROM (SELECT p.*, greatest(p.seed_offset,
                                (SELECT max(to_offset) FROM batches b WHERE (b.pipeline, b.topic, b.partition) =
                                 (p.pipeline, p.topic, p.partition)),
                                (SELECT max(to_offset) FROM gaps g WHERE (g.pipeline, g.topic, g.partition) =
                                 (p.pipeline, p.topic, p.partition))) AS reached FROM positions p) t
     WHERE next_offset <> reached",
    "SELECT format('%s %s[%s]: batch %s has no position', pipeline, topic, partition, id)
     FROM batches b LEFT JOIN positions p USING (pipeline, topic, partition) WHERE p.epoch IS NULL",
    // Epochs never decrease.
    "SELECT format('%s %s[%s]: the epoch falls from %s to %s at offset %s', pipeline, topic, partition, previous, epoch, from_offset)
     FROM (SELECT *, lag(epoch) OVER (PARTITION BY pipeline, topic, partition ORDER BY from_offset) AS previous
           FROM (SELECT pipeline, topic, partition, from_offset, epoch FROM batches
                 UNION ALL SELECT pipeline, topic, partition, from_offset, epoch FROM gaps) steps) t
     WHERE epoch < previous",
    // in = ok + reused + skipped + dead, for each task.
    "SELECT format('batch %s: task %s accounts for %s outcomes of %s records', b.id, u.task, u.ok + u.reused + u.skipped + u.dead, b.records)
     FROM usage u JOIN batches b ON b.id = u.batch_id WHERE u.ok + u.reused + u.skipped + u.dead <> b.records",
    "SELECT format('batch %s: %s task records, but its tasks account for %s', b.id, b.units_in, coalesce(sum(u.ok + u.reused + u.skipped + u.dead), 0))
     FROM batches b LEFT JOIN usage u ON u.batch_id = b.id GROUP BY b.id
     HAVING b.units_in <> coalesce(sum(u.ok + u.reused + u.skipped + u.dead), 0)",
    // Every live file belongs to one committed batch and has the batch's number of rows.
    "SELECT format('file %s is live, but its batch %s was never committed', f.path, f.batch_id)
     FROM parquet_files f LEFT JOIN batches b ON b.id = f.batch_id WHERE f.state = 'live' AND b.id IS NULL",
    "SELECT format('batch %s says %s Parquet rows, its live files hold %s', b.id, b.parquet_rows, coalesce(sum(f.rows), 0))
     FROM batches b LEFT JOIN parquet_files f ON f.batch_id = b.id AND f.state = 'live' GROUP BY b.id
     HAVING b.parquet_rows <> coalesce(sum(f.rows), 0) OR count(f.path) > 1",
    // Every visible row belongs to a committed batch.
    "SELECT format('%s: document %s is visible, but its batch %s was never committed', d.pipeline, d.id, d.batch_id)
     FROM documents d LEFT JOIN batches b ON b.id = d.batch_id WHERE b.id IS NULL",
    "SELECT format('%s: result %s of document %s is visible, but its batch %s was never committed', r.pipeline, r.task, r.document_id, r.batch_id)
     FROM results r LEFT JOIN batches b ON b.id = r.batch_id WHERE b.id IS NULL",
    // Results belong to documents that are not deleted, and vectors to results.
    "SELECT format('%s: result %s belongs to document %s, which is deleted or missing', r.pipeline, r.task, r.document_id)
     FROM results r LEFT JOIN documents d ON d.pipeline = r.pipeline AND d.id = r.document_id WHERE d.id IS NULL OR d.deleted",
    "SELECT format('%s: result %s of document %s has %s vectors, not %s', r.pipeline, r.task, r.document_id, count(e.chunk), r.fields ->> 'chunks')
     FROM results r LEFT JOIN embeddings e USING (pipeline, document_id, task) WHERE r.kind = 'embed'
     GROUP BY r.pipeline, r.task, r.document_id HAVING count(e.chunk) <> (r.fields ->> 'chunks')::bigint",
    "SELECT format('%s: vectors of %s of document %s have no result', e.pipeline, e.task, e.document_id)
     FROM embeddings e LEFT JOIN results r USING (pipeline, document_id, task) WHERE r.kind IS DISTINCT FROM 'embed'",
    // Every result of an interaction has its row in `interactions`.
    "SELECT format('%s: result %s of document %s is an interaction, but has no row in interactions', r.pipeline, r.task, r.document_id)
     FROM results r LEFT JOIN interactions i USING (pipeline, document_id, task) WHERE r.kind = 'interact' AND i.at IS NULL",
    // Copy belongs to documents that are not deleted. Published versions, and no others, have published keys.
    "SELECT format('%s: version %s of the copy of %s is %s, but the document is deleted or missing', v.pipeline, v.version, v.document_id, v.state)
     FROM copy_versions v LEFT JOIN documents d ON d.pipeline = v.pipeline AND d.id = v.document_id
     WHERE v.state IN ('review', 'approved') AND (d.id IS NULL OR d.deleted)",
    "SELECT format('%s: version %s of the copy of %s is %s and holds `%s`%s', v.pipeline, v.version, v.document_id, v.state, k.field,
                   CASE WHEN k.published THEN ' as published' ELSE '' END)
     FROM copy_keys k JOIN copy_versions v USING (pipeline, document_id, version)
     WHERE v.state NOT IN ('review', 'approved') OR k.published <> (v.state = 'approved')",
    // The offset of a dead letter is within its batch.
    "SELECT format('dead letter %s at offset %s is outside its batch %s', l.id, l.record_offset, b.id)
     FROM dead_letters l JOIN batches b ON b.id = l.batch_id
     WHERE (l.pipeline, l.topic, l.partition) <> (b.pipeline, b.topic, b.partition)
        OR l.record_offset < b.from_offset OR l.record_offset >= b.to_offset",
    // Fault counts match the dead letters of the batch; they stay when dead letters are purged.
    "SELECT format('batch %s counts %s records of class %s among %s task records that became dead letters', b.id, f.records, f.class, b.units_dead)
     FROM faults f JOIN batches b ON b.id = f.batch_id WHERE f.records < 1 OR f.records > b.units_dead OR f.records > b.records",
    "SELECT format('batch %s has dead letters of %s records of class %s, but counts %s', l.batch_id, l.records, l.class, f.records)
     FROM (SELECT batch_id, class, count(DISTINCT record_offset) AS records FROM dead_letters GROUP BY batch_id, class) l
     JOIN faults f USING (batch_id, class) WHERE l.records > f.records",
    // Rows of `under_way` have the epoch of a claim, and rows of `attempts` are of records that the position has not passed.
    "SELECT format('%s %s[%s]: a batch was started under epoch %s, but %s', u.pipeline, u.topic, u.partition, u.epoch,
                   coalesce('the latest is ' || p.epoch, 'there is no position'))
     FROM under_way u LEFT JOIN positions p USING (pipeline, topic, partition) WHERE p.epoch IS NULL OR u.epoch > p.epoch",
    "SELECT format('%s %s[%s]: offset %s is still attempted, but the position is %s', a.pipeline, a.topic, a.partition,
                   a.record_offset, p.next_offset)
     FROM attempts a LEFT JOIN positions p USING (pipeline, topic, partition)
     WHERE p.next_offset IS NULL OR a.record_offset < p.next_offset",
    // A lead belongs to a document that is not deleted, and a company's number of documents is right.
    "SELECT format('%s: lead %s has no document, or a deleted one', l.pipeline, l.document_id)
     FROM leads l LEFT JOIN documents d ON (d.pipeline, d.id) = (l.pipeline, l.document_id) WHERE d.deleted IS NOT FALSE",
    "SELECT format('%s: account %s counts %s documents, but has %s', a.pipeline, a.key, a.documents, count(l.document_id))
     FROM accounts a LEFT JOIN leads l ON (l.pipeline, l.account) = (a.pipeline, a.key)
     GROUP BY a.pipeline, a.key, a.documents HAVING a.documents <> count(l.document_id)",
    // The word counts that BM25 uses match the words of the documents.
    "SELECT format('%s: %s documents with %s occurrences are counted for the word `%s`, but there are %s with %s', pipeline, counted.documents,
                   counted.words, word, coalesce(held.documents, 0), coalesce(held.words, 0))
     FROM (SELECT pipeline, word, sum(documents) AS documents, sum(words) AS words FROM word_counts GROUP BY pipeline, word) counted
     FULL JOIN (SELECT pipeline, lexeme AS word, count(*) AS documents, sum(cardinality(positions)) AS words
                FROM documents, unnest(search) WHERE NOT deleted GROUP BY pipeline, lexeme
                UNION ALL
                SELECT pipeline, '', count(*), coalesce(sum((SELECT sum(cardinality(positions)) FROM unnest(search))), 0)
                FROM documents WHERE NOT deleted GROUP BY pipeline) held
          USING (pipeline, word)
     WHERE coalesce(counted.documents, 0) <> coalesce(held.documents, 0) OR coalesce(counted.words, 0) <> coalesce(held.words, 0)",
];

impl Store {
    /// Finds violations of the ledger's invariants and returns one sentence for each. The checks read whole tables.
    pub async fn audit(&self) -> Result<Vec<String>, Transient> {
        let mut violations = Vec::new();
        for &check in CHECKS {
            for row in sqlx::query(check).fetch_all(&self.pool).await.map_err(unavailable)? {
                violations.push(row.get(0));
            }
        }
        Ok(violations)
    }
}
