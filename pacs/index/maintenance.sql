-- name: state
-- The switch, when it was ever turned.
SELECT value FROM node_state WHERE key = 'maintenance';

-- name: hold
-- The switch for one who turns it: two do so one after another.
SELECT value FROM node_state WHERE key = 'maintenance' FOR UPDATE;

-- name: turn
-- Turn it. Jobs are leased only while it is off (jobs.sql).
INSERT INTO node_state (key, value) VALUES ('maintenance', %(value)s)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, changed_at = now();

-- name: tell
-- All processes listen; one that misses this looks by itself a second later.
SELECT pg_notify('maintenance', '');

-- name: running
-- Jobs in some worker's hands. `abandoned`: its lease has ended, and the clerk will queue the job again.
SELECT id, model, study_uid, state, lease_owner AS owner, lease_until < now() AS abandoned,
       extract(epoch FROM now() - started_at)::float8 AS seconds
FROM ai_job WHERE state IN ('RUNNING', 'STORING') ORDER BY id;

-- name: storing
-- Processes that take objects in, or still store what they took before they were told not to (pacs/services/gate.py).
SELECT activity.application_name AS process, activity.pid
FROM pg_locks AS held JOIN pg_stat_activity AS activity ON activity.pid = held.pid
WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 2 AND held.classid = %(class)s AND held.objid = %(key)s
  AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY process, pid;

-- name: since
-- What happened after a moment.
SELECT (SELECT count(*) FROM instance WHERE stored_at >= %(since)s) AS stored,
       (SELECT count(*) FROM refusal WHERE made_at >= %(since)s) AS refused,
       (SELECT count(*) FROM ai_job WHERE created_at >= %(since)s AND job_key NOT LIKE 'decision:%%') AS jobs_planned,
       (SELECT count(*) FROM ai_job WHERE state = 'QUEUED') AS jobs_queued;
