-- name: stored
-- What is stored. Instances are summed from the studies' counters: counting a million rows takes too long for a screen.
SELECT (SELECT count(*) FROM patient) AS patients,
       count(*) AS studies,
       coalesce(sum(series_count), 0)::bigint AS series,
       coalesce(sum(instance_count), 0)::bigint AS instances
FROM study;

-- name: last_hour
-- Objects stored and refused during the last hour.
SELECT (SELECT count(*) FROM instance WHERE stored_at > now() - interval '1 hour') AS stored,
       (SELECT count(*) FROM refusal WHERE made_at > now() - interval '1 hour') AS refused;

-- name: queues
-- What waits for the clerk, and how old the oldest unsent outbox row is.
SELECT (SELECT count(*) FROM outbox WHERE sent_at IS NULL) AS outbox,
       (SELECT coalesce(extract(epoch FROM now() - min(made_at)), 0)::float8
          FROM outbox WHERE sent_at IS NULL) AS outbox_age_seconds,
       (SELECT count(*) FROM tombstone) AS to_unlink,
       (SELECT count(*) FROM conflict WHERE state = 'open') AS conflicts,
       (SELECT count(*) FROM patient_conflict) AS patient_conflicts,
       (SELECT count(*) FROM commitment WHERE state IN ('asked', 'checked')) AS commitments,
       (SELECT count(*) FROM forward_item WHERE state = 'waiting') AS to_forward,
       (SELECT count(*) FROM forward_item WHERE state = 'dead') AS forward_dead;

-- name: findings
-- Damage that the sweep and the scrub found and nobody cured, by kind.
SELECT kind, count(*) FROM finding WHERE cured_at IS NULL GROUP BY kind ORDER BY kind;

-- name: quarantined
-- What the doctor took out of the way, and nobody has looked at yet.
SELECT what, count(*) FROM quarantined GROUP BY what ORDER BY what;

-- name: waiting
-- How long the oldest queued AI job has waited.
SELECT coalesce(extract(epoch FROM now() - min(queued_at)), 0)::float8 AS seconds FROM ai_job WHERE state = 'QUEUED';

-- name: models
-- Model packages by state.
SELECT CASE WHEN disabled THEN 'disabled' ELSE state END AS state, count(*) FROM ai_model WHERE state <> 'retired'
GROUP BY 1 ORDER BY 1;

-- name: sidecars
-- Sidecars that were heard of during the last minute.
SELECT owner, ready, message, device, provider FROM ai_sidecar WHERE seen_at > now() - interval '1 minute' ORDER BY owner;

-- name: processes
-- Processes of the node at work on this database, by name.
SELECT split_part(application_name, ' ', 2) AS process, count(*) AS connections FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'filmroom %'
GROUP BY 1 ORDER BY 1;

-- name: jobs
-- AI jobs by state.
SELECT state, count(*) FROM ai_job GROUP BY state ORDER BY state;

-- name: maintenance
-- The maintenance switch, when it was ever turned.
SELECT value FROM node_state WHERE key = 'maintenance';
