-- name: add
-- Something is wrong; said once until it is cured.
INSERT INTO finding (kind, object_name, sop_instance_uid, message)
VALUES (%(kind)s, %(object_name)s, %(sop_instance_uid)s, %(message)s)
ON CONFLICT (kind, object_name) WHERE cured_at IS NULL DO NOTHING
RETURNING pk;

-- name: open
-- What nobody has cured yet, oldest first.
SELECT pk, kind, object_name, sop_instance_uid, message, found_at FROM finding
WHERE cured_at IS NULL ORDER BY pk LIMIT %(limit)s;

-- name: cure
-- These are right again.
UPDATE finding SET cured_at = now()
WHERE cured_at IS NULL AND kind = ANY(%(kinds)s) AND object_name = ANY(%(object_names)s)
RETURNING pk;
