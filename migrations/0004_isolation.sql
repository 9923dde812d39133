-- Records that end the process, pipelines that stop at too many dead letters, and dead letters that are sent again.

-- What the owner of a partition has begun. Where an owner ended without letting go, the row stays, and the records from the
-- position up to `begun_to` are in doubt: one of them may have ended the process. Written without waiting for the disk,
-- because it must outlive the process and not the database.
CREATE TABLE under_way (
    pipeline   text        NOT NULL,
    topic      text        NOT NULL,
    partition  integer     NOT NULL,
    epoch      bigint      NOT NULL,
    begun_to   bigint      NOT NULL,
    -- Whether one small batch was under way at a time, and not several side by side.
    narrowed   boolean     NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, topic, partition)
);

-- How often a record was begun alone and not finished. The commit that takes the position past the record deletes its row.
CREATE TABLE attempts (
    pipeline      text        NOT NULL,
    topic         text        NOT NULL,
    partition     integer     NOT NULL,
    record_offset bigint      NOT NULL,
    attempts      integer     NOT NULL DEFAULT 1,
    first_at      timestamptz NOT NULL DEFAULT now(),
    last_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, topic, partition, record_offset)
);

-- How many records of a batch died, by class. It stays when their letters are purged, so that the shares stay true.
CREATE TABLE faults (
    batch_id uuid    NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    class    text    NOT NULL,
    records  integer NOT NULL,
    PRIMARY KEY (batch_id, class)
);

INSERT INTO faults SELECT batch_id, class, count(DISTINCT record_offset) FROM dead_letters GROUP BY batch_id, class;

CREATE INDEX batches_by_commit ON batches (pipeline, committed_at DESC, id DESC);

-- Pipelines that were stopped, or resumed since; the others run. No batch of a stopped pipeline commits.
CREATE TABLE pipeline_states (
    pipeline    text        PRIMARY KEY,
    state       text        NOT NULL CHECK (state IN ('running', 'stopped')),
    -- The class of dead letters that there were too many of; null where someone stopped it.
    class       text,
    reason      text,
    since       timestamptz NOT NULL DEFAULT now(),
    "by"        text        NOT NULL,
    -- Batches committed earlier do not count towards the next stop.
    counts_from timestamptz NOT NULL DEFAULT '-infinity'
);

ALTER TABLE dead_letters
    -- How often the record had been sent again by the time it died.
    ADD COLUMN replays     integer NOT NULL DEFAULT 0,
    -- When it was put into the outbox to be sent again.
    ADD COLUMN replayed_at timestamptz;

-- What a record needs that an event does not: it goes out as it came in.
ALTER TABLE outbox
    ADD COLUMN keyless       boolean NOT NULL DEFAULT false,
    -- Null for an event, whose headers are the object of strings.
    ADD COLUMN header_names  text[],
    ADD COLUMN header_values bytea[],
    ADD COLUMN timestamp_ms  bigint,
    -- Where the record stood; null leaves the choice to the key.
    ADD COLUMN partition     integer;
