-- name: export
-- A snapshot that pg_dump can take as well.
SELECT pg_export_snapshot();

-- name: objects
-- Every object that the index names, with its size and digest; tab-separated.
COPY (SELECT object_name, size, encode(sha256, 'hex') FROM instance ORDER BY object_name) TO STDOUT;

-- name: conflicts
-- Every newcomer that is set aside; its file has no digest of its own in the index.
COPY (SELECT object_name, size, '' FROM conflict WHERE state = 'open' ORDER BY object_name) TO STDOUT;

-- name: database
-- What is being saved: its size in bytes and the version of its server.
SELECT pg_database_size(current_database()), current_setting('server_version_num')::integer;

-- name: still_named
-- Of these objects those that the index names now.
SELECT object_name FROM instance WHERE object_name = ANY(%(names)s)
UNION ALL SELECT object_name FROM conflict WHERE object_name = ANY(%(names)s) AND state = 'open';

-- name: note
-- What the last backup is doing, or has done. While one runs nothing is unlinked (lifecycle.sql, graves).
INSERT INTO node_state (key, value) VALUES ('backup', %(value)s)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, changed_at = now();

-- name: users
-- Processes of a node at work on this database.
SELECT DISTINCT application_name FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'filmroom %%' AND NOT starts_with(application_name, %(own)s);

-- name: tables
-- The tables of the schema that we live in.
SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename;

-- name: gone
-- Out of the index: deleted after the snapshot, and a delete does not come back.
SELECT count(*) FROM remove_instances((SELECT array_agg(pk ORDER BY pk) FROM instance
                                       WHERE object_name = ANY(%(names)s)), 'deleted');

-- name: decided
-- These conflicts were decided after the snapshot.
UPDATE conflict SET state = 'kept', resolved_at = now() WHERE object_name = ANY(%(names)s) AND state = 'open';

-- name: forget
-- What was true of the system that was saved and is not of this one: its store's name, its last sign of life.
DELETE FROM node_state WHERE key IN ('store', 'alive', 'backup');
