-- name: underived
-- Instances after a place in the index of which nothing is derived yet, oldest first.
SELECT pk, study_uid, series_uid, sop_class_uid, sop_instance_uid, transfer_syntax_uid, number_of_frames, object_name, size,
       data_offset, sha256, data_sha256, series_number, instance_number
FROM held
WHERE pk > %(after)s AND NOT EXISTS (SELECT FROM instance_derived WHERE instance_pk = pk)
ORDER BY pk LIMIT %(limit)s;

-- name: may_be_lost
-- What is derived can be derived again: its commit need not wait for the disk that senders wait for.
SET LOCAL synchronous_commit = off;

-- name: keep
-- What was derived; nothing when the instance has gone or was derived by somebody else.
INSERT INTO instance_derived (instance_pk, metadata, frames)
SELECT pk, %(metadata)s, %(frames)s FROM instance WHERE pk = %(pk)s AND object_name = %(object_name)s
ON CONFLICT (instance_pk) DO NOTHING;

-- name: settled_before
-- The last instance that was stored long enough ago that none before it can still appear.
SELECT coalesce(max(pk), 0) FROM (
    SELECT pk FROM instance WHERE stored_at < now() - interval '2 minutes' ORDER BY stored_at DESC LIMIT 1) AS last;

-- name: senders_at_work
-- Whether something was stored a moment ago.
SELECT coalesce(max(stored_at) > now() - interval '2 seconds', false) FROM instance;
