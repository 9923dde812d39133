-- The ledger: positions, batches, what they made, and the files they wrote.
-- One transaction advances a position and makes everything of its batch visible; see src/store/commit.rs.

CREATE EXTENSION IF NOT EXISTS vector;

-- How far each pipeline has come in each partition. `epoch` is the fence: it grows with every claim, and a commit
-- names the epoch under which its records were read.
CREATE TABLE positions (
    pipeline    text        NOT NULL,
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    seed_offset bigint      NOT NULL,
    next_offset bigint      NOT NULL,
    epoch       bigint      NOT NULL DEFAULT 0,
    owner       text,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, topic, partition),
    CHECK (seed_offset >= 0 AND next_offset >= seed_offset)
);

-- One row a committed micro-batch. The rows of a partition tile seed_offset..next_offset.
CREATE TABLE batches (
    id            uuid        PRIMARY KEY,
    pipeline      text        NOT NULL,
    topic         text        NOT NULL,
    partition     integer     NOT NULL,
    from_offset   bigint      NOT NULL,
    to_offset     bigint      NOT NULL,
    epoch         bigint      NOT NULL,
    records       integer     NOT NULL,
    units_in      integer     NOT NULL,
    units_ok      integer     NOT NULL,
    units_reused  integer     NOT NULL,
    units_skipped integer     NOT NULL,
    units_dead    integer     NOT NULL,
    parquet_rows  integer     NOT NULL,
    committed_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (pipeline, topic, partition, from_offset),
    CHECK (to_offset > from_offset),
    CHECK (units_in = units_ok + units_reused + units_skipped + units_dead)
);

-- What each task of a batch came to, and cost.
CREATE TABLE usage (
    batch_id      uuid    NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    pipeline      text    NOT NULL,
    task          text    NOT NULL,
    ok            integer NOT NULL,
    reused        integer NOT NULL,
    skipped       integer NOT NULL,
    dead          integer NOT NULL,
    tokens        bigint  NOT NULL,
    device_micros bigint  NOT NULL,
    PRIMARY KEY (batch_id, task)
);

CREATE INDEX usage_by_pipeline ON usage (pipeline, task);

-- The latest version of each document. A deleted one keeps its row, so that an older version cannot bring it back.
CREATE TABLE documents (
    pipeline   text        NOT NULL,
    id         text        NOT NULL,
    version    bigint      NOT NULL,
    deleted    boolean     NOT NULL,
    text       text        NOT NULL,
    metadata   jsonb       NOT NULL,
    batch_id   uuid        NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- A tsvector holds at most 1 MiB; 100,000 characters stay below that in any script.
    search     tsvector    GENERATED ALWAYS AS (to_tsvector('english'::regconfig, left(text, 100000))) STORED,
    PRIMARY KEY (pipeline, id)
);

CREATE INDEX documents_search ON documents USING gin (search);
CREATE INDEX documents_metadata ON documents USING gin (metadata jsonb_path_ops);

-- The latest output of each task for each document.
CREATE TABLE results (
    pipeline      text        NOT NULL,
    document_id   text        NOT NULL,
    task          text        NOT NULL,
    kind          text        NOT NULL,
    version       bigint      NOT NULL,
    label         text,
    confidence    real,
    text          text,
    fields        jsonb       NOT NULL,
    -- Everything that decides the output, hashed: an equal fingerprint means the output need not be computed.
    fingerprint   bytea       NOT NULL,
    tokens        integer     NOT NULL,
    device_micros bigint      NOT NULL,
    batch_id      uuid        NOT NULL,
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, document_id, task)
);

CREATE INDEX results_by_fingerprint ON results (fingerprint);
CREATE INDEX results_by_label ON results (pipeline, task, label) WHERE label IS NOT NULL;

-- A vector space: one a model revision. Each has its own HNSW index over its part of `embeddings`.
CREATE TABLE embedding_sets (
    id        integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    model     text    NOT NULL,
    revision  text    NOT NULL,
    dimension integer NOT NULL,
    UNIQUE (model, revision)
);

CREATE TABLE embeddings (
    set_id      integer NOT NULL REFERENCES embedding_sets (id),
    pipeline    text    NOT NULL,
    document_id text    NOT NULL,
    task        text    NOT NULL,
    chunk       integer NOT NULL,
    span_start  integer NOT NULL,
    span_end    integer NOT NULL,
    tokens      integer NOT NULL,
    vector      vector  NOT NULL,
    PRIMARY KEY (pipeline, document_id, task, chunk)
);

-- Files of the Parquet datasets. A row stands before its file is written, so that no file is ever unknown;
-- only `live` ones are part of the dataset.
CREATE TABLE parquet_files (
    path       text        PRIMARY KEY,
    dataset    text        NOT NULL,
    pipeline   text        NOT NULL,
    batch_id   uuid        NOT NULL,
    state      text        NOT NULL CHECK (state IN ('staged', 'live', 'deleting')),
    rows       integer,
    bytes      bigint,
    blake3     bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (state <> 'live' OR (rows IS NOT NULL AND bytes IS NOT NULL AND blake3 IS NOT NULL))
);

CREATE INDEX parquet_files_by_batch ON parquet_files (batch_id);
CREATE INDEX parquet_files_not_live ON parquet_files (created_at) WHERE state <> 'live';

-- Records and units that can never succeed, with everything needed to look at them and to send them again.
-- `task` is empty where the record as a whole is at fault.
CREATE TABLE dead_letters (
    id            bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    pipeline      text        NOT NULL,
    topic         text        NOT NULL,
    partition     integer     NOT NULL,
    record_offset bigint      NOT NULL,
    task          text        NOT NULL DEFAULT '',
    document_id   text,
    class         text        NOT NULL,
    reason        text        NOT NULL,
    record_key    bytea,
    payload       bytea,
    header_names  text[]      NOT NULL,
    header_values bytea[]     NOT NULL,
    timestamp_ms  bigint,
    attempts      integer     NOT NULL DEFAULT 1,
    batch_id      uuid        NOT NULL REFERENCES batches (id),
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (pipeline, topic, partition, record_offset, task)
);

CREATE INDEX dead_letters_by_class ON dead_letters (pipeline, class, created_at);

-- Events to publish, written in the transaction that makes them true and deleted once the broker has them.
CREATE TABLE outbox (
    id       bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    event_id uuid   NOT NULL UNIQUE,
    topic    text   NOT NULL,
    key      bytea  NOT NULL,
    payload  bytea,
    -- An object of strings.
    headers  jsonb  NOT NULL
);
