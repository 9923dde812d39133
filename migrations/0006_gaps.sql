-- Offsets that an operator gave up, because their records are no longer in the topic. Together with batches, the gaps of a
-- partition tile seed_offset..next_offset: nothing is skipped without a row that says by whom and why.
CREATE TABLE gaps (
    pipeline    text        NOT NULL,
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    from_offset bigint      NOT NULL,
    to_offset   bigint      NOT NULL,
    -- The epoch that the skip began: whoever owned the partition before can no longer commit.
    epoch       bigint      NOT NULL,
    reason      text        NOT NULL,
    made_by     text        NOT NULL,
    made_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, topic, partition, from_offset),
    FOREIGN KEY (pipeline, topic, partition) REFERENCES positions (pipeline, topic, partition),
    CHECK (to_offset > from_offset)
);
