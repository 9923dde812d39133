-- Who may ask, and what they may see.

-- Tokens of the HTTP API. The secret itself is nowhere: a hash is enough to know it again.
CREATE TABLE tokens (
    id           text        PRIMARY KEY,
    name         text        NOT NULL,
    hash         bytea       NOT NULL CHECK (octet_length(hash) = 32),
    scopes       text[]      NOT NULL CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'submit', 'review', 'admin']),
    -- Null sees the rows of every tenant.
    tenant       text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    created_by   text        NOT NULL,
    expires_at   timestamptz,
    -- To the minute or so: a request costs no write.
    last_used_at timestamptz,
    revoked_at   timestamptz
);

-- Whose a pipeline is, and with it every row that names it. The pipeline's file says so, never a document.
CREATE TABLE pipelines (
    name   text PRIMARY KEY,
    tenant text NOT NULL CHECK (tenant <> '')
);

CREATE INDEX pipelines_by_tenant ON pipelines (tenant);

INSERT INTO pipelines
SELECT pipeline, 'default' FROM (SELECT pipeline FROM positions UNION SELECT pipeline FROM documents UNION SELECT pipeline FROM jobs) AS known;

-- Whoever reads for a tenant reads in this role, which owns nothing and sees through policies. The service itself owns the
-- tables, and policies do not concern an owner. Roles belong to the whole server: another database may have made it already, or
-- be making it right now.
DO $$
DECLARE
    service CONSTANT text := current_user;
    joined  boolean := false;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tidemill_reader') THEN
        BEGIN
            CREATE ROLE tidemill_reader NOLOGIN;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'there is no role tidemill_reader and % may not make it; let an administrator run once: '
                    'CREATE ROLE tidemill_reader NOLOGIN; GRANT tidemill_reader TO %;', service, quote_ident(service);
        END;
    END IF;
    FOR attempt IN 1..10 LOOP
        BEGIN
            -- What counts is whether it can be taken on; memberships say so in different words from version to version.
            PERFORM set_config('role', 'tidemill_reader', true);
            PERFORM set_config('role', 'none', true);
            joined := true;
        EXCEPTION
            WHEN insufficient_privilege THEN NULL;
        END;
        EXIT WHEN joined;
        BEGIN
            EXECUTE format('GRANT tidemill_reader TO %I', service);
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION '% is not in the role tidemill_reader and may not join it; let an administrator run once: '
                    'GRANT tidemill_reader TO %;', service, quote_ident(service);
            -- Another database's migration has just written the same row of the server's catalogue.
            WHEN internal_error OR unique_violation THEN PERFORM pg_sleep(0.05 * attempt);
        END;
    END LOOP;
    IF NOT joined THEN
        RAISE EXCEPTION '% cannot take on the role tidemill_reader; start again, or let an administrator run once: '
            'GRANT tidemill_reader TO %;', service, quote_ident(service);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO tidemill_reader', current_schema());
END
$$;

-- The tenant is set for one transaction at a time. Where it is not set, nothing is seen.
CREATE POLICY of_the_tenant ON pipelines FOR SELECT TO tidemill_reader
    USING (tenant = current_setting('tidemill.tenant', true));
ALTER TABLE pipelines ENABLE ROW LEVEL SECURITY;

-- Under the role's eyes `pipelines` holds the tenant's own and no others.
DO $$
DECLARE
    concerned text;
BEGIN
    FOREACH concerned IN ARRAY ARRAY['documents', 'results', 'embeddings', 'dead_letters', 'jobs', 'batches', 'usage'] LOOP
        EXECUTE format('CREATE POLICY of_the_tenant ON %I FOR SELECT TO tidemill_reader USING (pipeline IN (SELECT name FROM pipelines))',
                       concerned);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', concerned);
    END LOOP;
END
$$;

CREATE POLICY of_the_tenant ON units FOR SELECT TO tidemill_reader USING (job_id IN (SELECT id FROM jobs));
ALTER TABLE units ENABLE ROW LEVEL SECURITY;

-- Nothing else is granted. `embedding_sets` names models and is nobody's own.
GRANT SELECT ON pipelines, documents, results, embeddings, embedding_sets, dead_letters, jobs, units, batches, usage TO tidemill_reader;
