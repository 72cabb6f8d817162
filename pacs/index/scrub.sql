-- name: due
-- The objects whose last check is longest ago, if it is long enough ago.
SELECT pk, object_name, size, sop_instance_uid, sha256 FROM instance
WHERE checked_at < now() - %(seconds)s * interval '1 second'
ORDER BY checked_at, pk LIMIT %(limit)s;

-- name: checked
-- These were looked at now.
UPDATE instance SET checked_at = now() WHERE pk = ANY(%(pks)s);
