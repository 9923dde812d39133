-- Events that their topic can never take as they are. They stand aside, so that what is behind them goes out, until an operator has
-- them sent again or drops them.

ALTER TABLE outbox
    -- Whose event it is; null where it is of no pipeline, or an older version wrote it.
    ADD COLUMN pipeline text;

-- Each topic is published by itself: what one cannot take does not hold up the others.
CREATE INDEX outbox_by_topic ON outbox (topic, id);

CREATE TABLE parked_events (
    -- Its place in the order of commits, which it takes again where it is sent again.
    id            bigint      PRIMARY KEY,
    event_id      uuid        NOT NULL UNIQUE,
    pipeline      text,
    topic         text        NOT NULL,
    key           bytea       NOT NULL,
    keyless       boolean     NOT NULL,
    payload       bytea,
    headers       jsonb       NOT NULL,
    header_names  text[],
    header_values bytea[],
    timestamp_ms  bigint,
    partition     integer,
    reason        text        NOT NULL,
    parked_at     timestamptz NOT NULL DEFAULT now(),
    -- Whether a later event of the same topic and key went out since: sent after it, this one would be taken for the newer.
    overtaken     boolean     NOT NULL DEFAULT false,
    -- Whether an operator wants it sent again, and whether even behind a later one. Whoever publishes the topic takes it back into
    -- the outbox while nothing of that topic is under way.
    resend        boolean     NOT NULL DEFAULT false,
    out_of_order  boolean     NOT NULL DEFAULT false
);

CREATE INDEX parked_events_by_key ON parked_events (topic, key);

CREATE POLICY of_the_tenant ON parked_events FOR SELECT TO tidemill_reader USING (pipeline IN (SELECT name FROM pipelines));
ALTER TABLE parked_events ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON parked_events TO tidemill_reader;
