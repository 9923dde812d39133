-- What was done of late is shown to people, again and again.

CREATE INDEX batches_by_time ON batches (committed_at);
