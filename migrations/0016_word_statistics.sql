-- Words as texts and questions have them in common, and how many documents of a pipeline hold each: what ranking by words (BM25) needs.

-- The form in which texts and questions are compared: what no reader sees (soft hyphens, zero-width characters, selectors of variants)
-- is left out, and forms that look alike (ligatures, decomposed letters, wide letters) are made one. Punctuation and signs beyond ASCII
-- become spaces: where the database's letters are those of C, the parser takes them for letters. `forms.rs` does the same to questions.
CREATE FUNCTION searchable_text(text text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN octet_length(text) = char_length(text) THEN left(text, 100000)
         ELSE left(regexp_replace(
             normalize(regexp_replace(left(text, 100000),
                 '[\u00AD\u034F\u061C\u115F\u1160\u17B4\u17B5\u180B-\u180F\u200B-\u200F\u202A-\u202E\u2060-\u206F\u3164\uFE00-\uFE0F\uFEFF\uFFA0\uFFF0-\uFFF8\U0001BCA0-\U0001BCA3\U0001D173-\U0001D17A\U000E0000-\U000E0FFF]',
                 '', 'g'), NFKC),
             '[\u0080-\u00A9\u00AB-\u00B4\u00B6-\u00B9\u00BB-\u00BF\u00D7\u00F7\u02C2-\u02C5\u037E\u0387\u055A-\u055F\u0589\u05BE\u05C0\u05C3\u05F3\u05F4\u060C\u061B\u061E\u061F\u066A-\u066D\u06D4\u0964\u0965\u2000-\u206F\u20A0-\u20CF\u2190-\u2BFF\u2E00-\u2E7F\u3000-\u3004\u3008-\u3020\u3030\u303D-\u303F\u30A0\u30FB\uFE10-\uFE6F\uFFFC\uFFFD\U0001F000-\U0001FAFF]',
             ' ', 'g'), 100000)
    END;

-- Scripts without spaces become pairs of characters, as 0008 says. Of a part number, an address or a path each part is a word: the
-- parser takes `-4105` for a number below zero and `lamps.example` for one word, so signs between parts become spaces. A slash stays
-- where it belongs to a tag, which is no text. A tsvector holds at most 1 MiB: 100,000 characters stay below, and 50,000 where each
-- may make a word of its own.
CREATE OR REPLACE FUNCTION document_words(text text) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (
    SELECT to_tsvector('english'::regconfig, regexp_replace(translate(
        CASE WHEN octet_length(t) > char_length(t)
                  AND t ~ '[\u1100-\u11FF\u3005\u3040-\u31FF\u3400-\u4DBF\u4E00-\u9FFF\uAC00-\uD7A3\uF900-\uFAFF\uFF66-\uFFDC\U00020000-\U0003FFFF]'
             THEN regexp_replace(
                 -- What is written together with Latin letters or digits is a word of its own.
                 regexp_replace(regexp_replace(left(t, 50000),
                     '([0-9A-Za-z])([\u1100-\u11FF\u3005\u3040-\u31FF\u3400-\u4DBF\u4E00-\u9FFF\uAC00-\uD7A3\uF900-\uFAFF\uFF66-\uFFDC\U00020000-\U0003FFFF])', '\1 \2', 'g'),
                     '([\u1100-\u11FF\u3005\u3040-\u31FF\u3400-\u4DBF\u4E00-\u9FFF\uAC00-\uD7A3\uF900-\uFAFF\uFF66-\uFFDC\U00020000-\U0003FFFF])([0-9A-Za-z])', '\1 \2', 'g'),
                 '([\u1100-\u11FF\u3005\u3040-\u31FF\u3400-\u4DBF\u4E00-\u9FFF\uAC00-\uD7A3\uF900-\uFAFF\uFF66-\uFFDC\U00020000-\U0003FFFF])', '\1 \1', 'g')
             ELSE t
        END, '-_.\:@+', '       '), '(?<!<)/(?!>)', ' ', 'g'))
    FROM searchable_text(text) AS t);

-- Every text is read again, and the table is locked for as long: a few minutes for a million short documents. Streams pause.
SET LOCAL statement_timeout = 0;

DROP INDEX documents_search;
ALTER TABLE documents
    DROP COLUMN search,
    ADD COLUMN search tsvector GENERATED ALWAYS AS (document_words(text)) STORED;
CREATE INDEX documents_search ON documents USING gin (search);

-- How many documents hold a word and how often, and how many documents and words there are (where `word` is empty). The truth is the sum of the rows:
-- a change of documents adds rows and touches none, so that commits never wait for each other here.
CREATE TABLE word_counts (
    pipeline  text   COLLATE "C" NOT NULL,
    word      text   COLLATE "C" NOT NULL,
    documents bigint NOT NULL,
    words     bigint NOT NULL
);
CREATE INDEX word_counts_by_word ON word_counts (pipeline, word);
-- One for each change since counts were last brought together.
CREATE INDEX word_counts_of_all ON word_counts (pipeline) WHERE word = '';

CREATE FUNCTION count_words() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changes CONSTANT text := CASE TG_OP
        WHEN 'INSERT' THEN 'SELECT pipeline, search, 1 AS sign FROM added WHERE NOT deleted'
        WHEN 'DELETE' THEN 'SELECT pipeline, search, -1 AS sign FROM removed WHERE NOT deleted'
        -- Of a text that stays, nothing changes.
        ELSE 'SELECT pipeline, search, 1 AS sign FROM (
                  SELECT pipeline, id, search FROM added WHERE NOT deleted
                  EXCEPT SELECT pipeline, id, search FROM removed WHERE NOT deleted) AS new
              UNION ALL
              SELECT pipeline, search, -1 FROM (
                  SELECT pipeline, id, search FROM removed WHERE NOT deleted
                  EXCEPT SELECT pipeline, id, search FROM added WHERE NOT deleted) AS old'
        END;
BEGIN
    EXECUTE format($statement$
        WITH changed AS MATERIALIZED (%s), counted AS MATERIALIZED (
            SELECT pipeline, lexeme, sum(sign) AS documents, sum(sign * cardinality(positions)) AS words
            FROM changed, unnest(search) GROUP BY pipeline, lexeme
        )
        INSERT INTO word_counts (pipeline, word, documents, words)
        SELECT pipeline, lexeme, documents, words FROM counted WHERE documents <> 0 OR words <> 0
        UNION ALL
        SELECT pipeline, '', sum(sign), coalesce((SELECT sum(words) FROM counted c WHERE c.pipeline = d.pipeline), 0)
        FROM changed d GROUP BY pipeline
    $statement$, changes);
    RETURN NULL;
END
$$;

-- Brings the counts of each word into one row, in pipelines with at least so many changes. Words that no document holds any more leave
-- none. Commits go on meanwhile: what they add is left for the next time.
CREATE FUNCTION gather_word_counts(fewest bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    busy text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('word_counts', 0)) THEN
        RETURN;
    END IF;
    FOR busy IN SELECT pipeline FROM word_counts WHERE word = '' GROUP BY pipeline HAVING count(*) >= fewest LOOP
        WITH several AS MATERIALIZED (
            SELECT word FROM word_counts WHERE pipeline = busy GROUP BY word HAVING count(*) > 1 OR sum(documents) = 0
        ), gathered AS (
            DELETE FROM word_counts c USING several s WHERE c.pipeline = busy AND c.word = s.word
            RETURNING c.word, c.documents, c.words
        )
        INSERT INTO word_counts (pipeline, word, documents, words)
        SELECT busy, word, sum(documents), sum(words) FROM gathered
        GROUP BY word HAVING sum(documents) <> 0 OR sum(words) <> 0;
    END LOOP;
END
$$;

CREATE TRIGGER count_words_added AFTER INSERT ON documents
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_words();
CREATE TRIGGER count_words_changed AFTER UPDATE ON documents
    REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_words();
CREATE TRIGGER count_words_removed AFTER DELETE ON documents
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION count_words();

INSERT INTO word_counts (pipeline, word, documents, words)
SELECT pipeline, lexeme, count(*), sum(cardinality(positions)) FROM documents, unnest(search) WHERE NOT deleted GROUP BY pipeline, lexeme;

INSERT INTO word_counts (pipeline, word, documents, words)
SELECT pipeline, '', count(*), coalesce((SELECT sum(words) FROM word_counts c WHERE c.pipeline = d.pipeline), 0)
FROM documents d WHERE NOT deleted GROUP BY pipeline;
