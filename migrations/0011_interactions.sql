-- What people did with documents, for recommendations: written by tasks of the kind `interact` in the transaction that commits the
-- event, and gone in the one in which the event's result goes, be it by a newer version, a tombstone or a job that deletes. So an
-- event counts once, however often it is delivered.
CREATE TABLE interactions (
    -- The event: the result that says so.
    pipeline    text             NOT NULL,
    document_id text             NOT NULL,
    task        text             NOT NULL,
    -- What it is about: a document of the pipeline `target`, which need not be there yet, or any more.
    target      text             NOT NULL,
    item        text             NOT NULL,
    user_id     text             NOT NULL,
    kind        text             NOT NULL,
    value       double precision,
    -- When it happened; never ahead of the commit.
    at          timestamptz      NOT NULL,
    PRIMARY KEY (pipeline, document_id, task),
    FOREIGN KEY (pipeline, document_id, task) REFERENCES results ON DELETE CASCADE
);

-- The latest of one person, and the latest of all: nothing else is asked, so no other index has to be kept.
CREATE INDEX interactions_by_user ON interactions (target, user_id, at DESC);
CREATE INDEX interactions_by_time ON interactions (target, at DESC);

CREATE POLICY of_the_tenant ON interactions FOR SELECT TO tidemill_reader USING (pipeline IN (SELECT name FROM pipelines));
ALTER TABLE interactions ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON interactions TO tidemill_reader;
