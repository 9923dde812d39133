-- Results name the model and the prompt they come from, and what was written for them; prompts are kept by content.

ALTER TABLE results
    ADD COLUMN model            text,
    ADD COLUMN model_revision   text,
    ADD COLUMN prompt           text,
    ADD COLUMN generated_tokens integer NOT NULL DEFAULT 0;

ALTER TABLE usage
    ADD COLUMN generated_tokens bigint NOT NULL DEFAULT 0;

-- One row a wording: `version` is the hash of everything else but the time.
CREATE TABLE prompts (
    version       text        PRIMARY KEY,
    name          text        NOT NULL,
    system        text,
    body          text        NOT NULL,
    parameters    jsonb       NOT NULL,
    -- As text: jsonb would forget the order of the keys, which decides the order of an answer's fields.
    schema        text,
    first_used_at timestamptz NOT NULL DEFAULT now()
);
