-- Each audit row is sealed a moment after it was committed (docs/decisions/0008): seal = sha256(seal before, row).
-- A table of its own, for the rows are written in transactions that must not wait for one another.
CREATE TABLE audit_seal (
    audit_id            bigint PRIMARY KEY,  -- the chain goes in the order of these
    hash                bytea NOT NULL CHECK (octet_length(hash) = 32)
);

-- for time ranges; the table grows at its end, so a summary of its blocks is enough, and made in one quick pass
CREATE INDEX audit_by_time ON audit USING brin (at);
-- who saw a patient in a list
CREATE INDEX audit_by_listed ON audit USING gin ((detail -> 'patients') jsonb_path_ops) WHERE detail ? 'patients';

CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
        MESSAGE = 'rows of ' || TG_TABLE_NAME || ' are never changed or deleted';
END $$;

CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_seal_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_seal
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- also where a session says that it replicates
ALTER TABLE audit ENABLE ALWAYS TRIGGER audit_append_only;
ALTER TABLE audit_seal ENABLE ALWAYS TRIGGER audit_seal_append_only;
