-- Schedules: what the fleet remembers of those that pipelines and configurations name, and what became of each of their times.

CREATE TABLE schedules (
    name        text        PRIMARY KEY,
    -- The hash of what decides its times. When that changes, the schedule begins anew.
    timing      text        NOT NULL,
    -- Since when it is known in this form: no earlier time is its own.
    since       timestamptz NOT NULL,
    -- Every time up to here is decided.
    decided_to  timestamptz NOT NULL
);

CREATE TABLE firings (
    schedule    text        NOT NULL,
    -- As the schedule says, whenever it was decided.
    fire_at     timestamptz NOT NULL,
    outcome     text        NOT NULL CHECK (outcome IN ('fired', 'skipped', 'missed', 'refused')),
    reason      text,
    job_id      text        REFERENCES jobs (id) ON DELETE SET NULL,
    decided_at  timestamptz NOT NULL DEFAULT now(),
    -- The process.
    decided_by  text        NOT NULL,
    PRIMARY KEY (schedule, fire_at),
    CHECK (outcome = 'fired' OR reason IS NOT NULL)
);

CREATE INDEX firings_by_job ON firings (job_id) WHERE job_id IS NOT NULL;
