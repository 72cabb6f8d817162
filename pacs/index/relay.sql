-- name: take_stored
-- Originals that the ledger has not noted yet; noted, they are done with.
DELETE FROM outbox WHERE id IN (
    SELECT id FROM outbox WHERE topic = 'stored' AND sent_at IS NULL ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING payload ->> 'study_uid' AS study_uid;

-- name: take_jobs
-- Jobs to tell Redis about.
SELECT id, (payload ->> 'job')::bigint AS job, payload ->> 'priority' AS priority FROM outbox
WHERE topic = 'job' AND sent_at IS NULL ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED;

-- name: sent
UPDATE outbox SET sent_at = now() WHERE id = ANY(%(ids)s);

-- name: published
UPDATE ai_job SET published_at = now() WHERE id = ANY(%(jobs)s);

-- name: prune
-- Sent rows are kept for an hour, for those who look into what happened.
DELETE FROM outbox WHERE id IN (
    SELECT id FROM outbox WHERE sent_at < now() - interval '1 hour' ORDER BY id LIMIT 10000);

-- name: lag
SELECT count(*) AS rows, coalesce(extract(epoch FROM now() - min(made_at)), 0)::float8 AS seconds
FROM outbox WHERE sent_at IS NULL AND topic IN ('stored', 'job');

-- name: epoch
-- A value that Redis mirrors: made once, by whoever asks first.
INSERT INTO node_state (key, value) VALUES ('ai_epoch', to_jsonb(gen_random_uuid()::text))
ON CONFLICT (key) DO UPDATE SET key = excluded.key
RETURNING value #>> '{}' AS epoch;
