-- Viewers look for `*text*` in these. Without the extension, or without the right to create it, such a search reads
-- all studies instead, which is quick up to some ten thousands of them.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
        CREATE EXTENSION IF NOT EXISTS pg_trgm;
        CREATE INDEX study_trigrams ON study USING gin (
            patient_name gin_trgm_ops, patient_id gin_trgm_ops, accession_number gin_trgm_ops,
            study_description gin_trgm_ops);
    END IF;
EXCEPTION
    WHEN insufficient_privilege OR feature_not_supported OR undefined_object THEN
        RAISE NOTICE USING MESSAGE = 'pg_trgm is not used: ' || SQLERRM;
END $$;
