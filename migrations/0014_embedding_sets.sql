-- A vector space gets its HNSW index once it is too large to compare all of it. This tells how large it is without reading the vectors.
CREATE INDEX embeddings_by_set ON embeddings (set_id);
