-- Leads: documents with a score, the companies that they belong to, and who was told of them.

-- One row a document, written with the batch that scored it.
CREATE TABLE leads (
    pipeline    text             NOT NULL,
    document_id text             NOT NULL,
    -- Of the document, and the beginning of its text's hash: together they tell whether anything is new.
    version     bigint           NOT NULL,
    content     bytea            NOT NULL,
    score       double precision NOT NULL,
    maximum     double precision NOT NULL,
    -- A list of name, value and formula, in order.
    parts       jsonb            NOT NULL,
    company     text,
    -- The company's name made one form, by which its documents are gathered.
    account     text,
    person      text,
    stage       text,
    intent      text,
    -- Whether the score reached the threshold of its time.
    above       boolean          NOT NULL,
    updated_at  timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, document_id)
);

CREATE INDEX leads_by_score ON leads (pipeline, score, document_id);
CREATE INDEX leads_by_time ON leads (pipeline, updated_at, document_id);
CREATE INDEX leads_by_account ON leads (pipeline, account, version, document_id) WHERE account IS NOT NULL;

-- One row a company. It stays when its last document has left, so that its versions never fall.
CREATE TABLE accounts (
    pipeline   text        NOT NULL,
    key        text        NOT NULL,
    -- As its newest document writes it.
    name       text        NOT NULL,
    -- Grows with every change of its documents.
    version    bigint      NOT NULL DEFAULT 1,
    documents  bigint      NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, key)
);

-- What receivers are told: one row each time that a lead's score came up to the threshold from below.
CREATE TABLE deliveries (
    -- The hash of pipeline, document and crossing, so that the same news never has two ids.
    id          uuid        PRIMARY KEY,
    pipeline    text        NOT NULL,
    document_id text        NOT NULL,
    -- Counts from 1 for each document.
    crossing    integer     NOT NULL,
    webhook     text        NOT NULL,
    -- As text, because every attempt signs and sends these very bytes.
    body        text        NOT NULL,
    state       text        NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'refused', 'given_up')),
    attempts    integer     NOT NULL DEFAULT 0,
    -- Nobody attempts it before. Whoever attempts it moves this past the end of the attempt first.
    next_at     timestamptz NOT NULL DEFAULT now(),
    status      integer,
    reason      text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (pipeline, document_id, crossing)
);

CREATE INDEX deliveries_waiting ON deliveries (webhook, next_at) WHERE state = 'waiting';
CREATE INDEX deliveries_by_time ON deliveries (created_at DESC, id);

DO $$
DECLARE
    concerned text;
BEGIN
    FOREACH concerned IN ARRAY ARRAY['leads', 'accounts', 'deliveries'] LOOP
        EXECUTE format('CREATE POLICY of_the_tenant ON %I FOR SELECT TO tidemill_reader USING (pipeline IN (SELECT name FROM pipelines))',
                       concerned);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', concerned);
    END LOOP;
END
$$;

GRANT SELECT ON leads, accounts, deliveries TO tidemill_reader;
