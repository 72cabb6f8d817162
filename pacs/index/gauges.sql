-- name: connections
-- Connections to the server by what they do, and how many it takes.
SELECT coalesce(state, 'other') AS state, count(*) AS connections FROM pg_stat_activity
WHERE backend_type = 'client backend' GROUP BY state;

-- name: connections_most
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS connections;

-- name: queues
-- What waits in each queue, and the age of the oldest in seconds. Counting ends at 10000: then the age says enough.
SELECT 'outbox' AS queue, count(*) AS rows, coalesce(extract(epoch FROM now() - min(made_at)), 0)::float8 AS seconds
FROM (SELECT made_at FROM outbox WHERE sent_at IS NULL ORDER BY id LIMIT 10000) AS waiting
UNION ALL
SELECT 'changes', count(*), coalesce(extract(epoch FROM now() - min(at)), 0)
FROM (SELECT at FROM change_feed WHERE seq IS NULL ORDER BY id LIMIT 10000) AS waiting
UNION ALL
SELECT 'audit', count(*), coalesce(extract(epoch FROM now() - min(at)), 0)
FROM (SELECT at FROM audit WHERE id > coalesce((SELECT max(audit_id) FROM audit_seal), 0) ORDER BY id LIMIT 10000)
     AS waiting
UNION ALL
SELECT 'unlink', count(*), coalesce(extract(epoch FROM now() - min(made_at)), 0)
FROM (SELECT made_at FROM tombstone ORDER BY pk LIMIT 10000) AS waiting
UNION ALL
SELECT 'conflicts', count(*), coalesce(extract(epoch FROM now() - min(made_at)), 0)
FROM (SELECT made_at FROM conflict WHERE state = 'open' ORDER BY id LIMIT 10000) AS waiting;

-- name: findings
-- Damage that nobody has cured yet.
SELECT kind, count(*) AS findings FROM finding WHERE cured_at IS NULL GROUP BY kind;

-- name: database_size
SELECT pg_database_size(current_database()) AS bytes;

-- name: maintenance
SELECT count(*) AS windows FROM node_state WHERE key = 'maintenance' AND value ->> 'state' <> 'off';
