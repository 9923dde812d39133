-- Copy of catalogues: what pages say of documents, in versions, with what checks and people said of each.

CREATE TABLE copy_versions (
    pipeline         text        NOT NULL,
    document_id      text        NOT NULL,
    version          integer     NOT NULL CHECK (version > 0),
    task             text        NOT NULL,
    origin           text        NOT NULL CHECK (origin IN ('generated', 'edited')),
    -- Of a document at most one is approved, which is the one on its page.
    state            text        NOT NULL CHECK (state IN ('review', 'approved', 'rejected', 'superseded', 'withdrawn')),
    -- A JSON object, its keys in order.
    content          text        NOT NULL,
    -- Null where none could be made, for which there is a reason then.
    url              text,
    reasons          jsonb       NOT NULL,
    traces           jsonb       NOT NULL,
    -- The version of the document that it was checked against.
    document_version bigint      NOT NULL,
    -- The content, hashed: what was generated again and is the same makes no version.
    fingerprint      bytea       NOT NULL CHECK (octet_length(fingerprint) = 32),
    -- The batch that brought it; null where a person wrote it.
    batch_id         uuid,
    -- The version that a person changed.
    based_on         integer,
    created_at       timestamptz NOT NULL DEFAULT now(),
    created_by       text,
    decided_at       timestamptz,
    -- Null where the pipeline's file decided, or the document went away.
    decided_by       text,
    note             text,
    PRIMARY KEY (pipeline, document_id, version),
    CHECK (state <> 'approved' OR url IS NOT NULL),
    CHECK ((origin = 'edited') = (created_by IS NOT NULL))
);

CREATE UNIQUE INDEX copy_versions_approved ON copy_versions (pipeline, document_id) WHERE state = 'approved';
CREATE INDEX copy_versions_by_state ON copy_versions (pipeline, state, document_id, version);

-- What no two pages of a catalogue may share, of versions that are approved or wait to be. Of two that wait, the one that came first
-- has it; whoever frees a value deletes the row.
CREATE SEQUENCE copy_arrivals;

CREATE TABLE copy_keys (
    pipeline    text    NOT NULL,
    document_id text    NOT NULL,
    version     integer NOT NULL,
    field       text    NOT NULL,
    value       bytea   NOT NULL,
    arrival     bigint  NOT NULL,
    published   boolean NOT NULL DEFAULT false,
    PRIMARY KEY (pipeline, document_id, version, field),
    FOREIGN KEY (pipeline, document_id, version) REFERENCES copy_versions ON DELETE CASCADE
);

CREATE INDEX copy_keys_by_value ON copy_keys (pipeline, field, value, arrival);
CREATE UNIQUE INDEX copy_keys_published ON copy_keys (pipeline, field, value) WHERE published;

-- As in 0009: a tenant sees what its pipelines made.
DO $$
DECLARE
    concerned text;
BEGIN
    FOREACH concerned IN ARRAY ARRAY['copy_versions', 'copy_keys'] LOOP
        EXECUTE format('CREATE POLICY of_the_tenant ON %I FOR SELECT TO tidemill_reader USING (pipeline IN (SELECT name FROM pipelines))',
                       concerned);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', concerned);
    END LOOP;
END
$$;

GRANT SELECT ON copy_versions, copy_keys TO tidemill_reader;
