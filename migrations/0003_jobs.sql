-- Jobs: work that somebody asked for, beside the streams. A job is cut into units, the units topic hands them out, and the
-- ledger keeps books on each unit as on a partition: (units.topic, units.ordinal) is its place in `positions`.

CREATE TABLE jobs (
    -- Given by whoever asks: the same id twice is one job.
    id             text        PRIMARY KEY,
    kind           text        NOT NULL,
    pipeline       text        NOT NULL,
    -- As text, so that the same words stay the same words.
    spec           text        NOT NULL,
    state          text        NOT NULL CHECK (state IN ('queued', 'planning', 'running', 'cancelling',
                                                         'succeeded', 'partial', 'failed', 'cancelled')),
    reason         text,
    priority       integer     NOT NULL DEFAULT 0,
    deadline       timestamptz,
    -- Of device time.
    budget_micros  bigint,
    -- The schedule that asked for it.
    schedule       text,
    -- Set where no further unit is to be begun: by a limit that was reached, or by somebody who cancels.
    stopping       boolean     NOT NULL DEFAULT false,
    -- What it found out, where finding out is what it was for.
    report         jsonb,
    created_at     timestamptz NOT NULL DEFAULT now(),
    started_at     timestamptz,
    finished_at    timestamptz,
    updated_at     timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX jobs_open ON jobs (priority DESC, created_at) WHERE state IN ('queued', 'planning', 'running', 'cancelling');
CREATE INDEX jobs_by_time ON jobs (created_at DESC);
CREATE INDEX jobs_by_schedule ON jobs (schedule, created_at DESC) WHERE schedule IS NOT NULL;

CREATE TABLE units (
    -- The hash of job, source, its version and range.
    id          text        PRIMARY KEY,
    job_id      text        NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    ordinal     integer     NOT NULL,
    topic       text        NOT NULL,
    source      jsonb       NOT NULL,
    from_row    bigint      NOT NULL,
    to_row      bigint      NOT NULL,
    -- Rows that are wanted of from_row..to_row.
    rows        bigint      NOT NULL,
    state       text        NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'failed', 'stopped')),
    class       text,
    reason      text,
    -- What the unit of a job that measures something has counted.
    report      jsonb,
    attempts    integer     NOT NULL DEFAULT 0,
    owner       text,
    started_at  timestamptz,
    finished_at timestamptz,
    UNIQUE (job_id, ordinal),
    CHECK (from_row >= 0 AND to_row > from_row),
    CHECK (state <> 'failed' OR (class IS NOT NULL AND reason IS NOT NULL))
);

CREATE INDEX units_open ON units (job_id) WHERE state = 'waiting';

-- Every field of a document's source, so that its tasks can be run again; null for documents from before this column.
ALTER TABLE documents ADD COLUMN source jsonb;
