-- Words of scripts that have no stemmer here and may have no spaces: Hangul, Chinese characters, Kana and Bopomofo. The parser takes
-- a run of them for one word, so that 토마토는 was not found by 토마. Each such character becomes two with a space between them,
-- which leaves the run's pairs of neighbours as words (토 토마 마토 토는 는); English words in the same text are stemmed as before.
-- Pairs, because most words of these languages are two or three characters long: single characters tell little, and threes
-- miss what is shorter. It takes passes over the text and no extension, and of a text without such characters only its lengths
-- are compared. Forms that look alike (decomposed Hangul, half-width Kana) are made one form first.
-- A tsvector holds at most 1 MiB: 50,000 characters stay below that also where each makes a word of its own.
CREATE FUNCTION document_words(text text) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    to_tsvector('english'::regconfig,
        CASE WHEN octet_length(text) > char_length(text)
                  AND text ~ '[\u1100-\u11FF\u3005\u3040-\u31FF\u3400-\u4DBF\u4E00-\u9FFF\uAC00-\uD7A3\uF900-\uFAFF\uFF66-\uFFDC\U00020000-\U0003FFFF]'
             THEN regexp_replace(
                 -- What is written together with Latin letters or digits is a word of its own.
                 regexp_replace(regexp_replace(normalize(left(text, 50000), NFKC),
                     '([0-9A-Za-z])([\u1100-\u11FF\u3005\u3040-\u31FF\u3400-\u4DBF\u4E00-\u9FFF\uAC00-\uD7A3\uF900-\uFAFF\uFF66-\uFFDC\U00020000-\U0003FFFF])', '\1 \2', 'g'),
                     '([\u1100-\u11FF\u3005\u3040-\u31FF\u3400-\u4DBF\u4E00-\u9FFF\uAC00-\uD7A3\uF900-\uFAFF\uFF66-\uFFDC\U00020000-\U0003FFFF])([0-9A-Za-z])', '\1 \2', 'g'),
                 '([\u1100-\u11FF\u3005\u3040-\u31FF\u3400-\u4DBF\u4E00-\u9FFF\uAC00-\uD7A3\uF900-\uFAFF\uFF66-\uFFDC\U00020000-\U0003FFFF])', '\1 \1', 'g')
             ELSE left(text, 100000)
        END);

-- Every text is read again, and the table is locked for as long: a minute or so for a million short documents. Streams pause.
SET LOCAL statement_timeout = 0;

ALTER TABLE documents DROP COLUMN search;
ALTER TABLE documents ADD COLUMN search tsvector GENERATED ALWAYS AS (document_words(text)) STORED;

CREATE INDEX documents_search ON documents USING gin (search);
