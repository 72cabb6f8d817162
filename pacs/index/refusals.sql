-- name: add
-- Remember why an object was not accepted.
INSERT INTO refusal (id, reason, message, sop_class_uid, sop_instance_uid, study_uid, door, peer, address, made_at)
VALUES (%(id)s, %(reason)s, %(message)s, %(sop_class_uid)s, %(sop_instance_uid)s, %(study_uid)s, %(door)s, %(peer)s,
        %(address)s, %(made_at)s)
ON CONFLICT (id) DO NOTHING;

-- name: get
-- One refusal by the id that the sender was told.
SELECT id, reason, message, sop_class_uid, sop_instance_uid, study_uid, door, peer, address, made_at
FROM refusal WHERE id = %(id)s;

-- name: forget
-- Refusals older than the limit.
DELETE FROM refusal WHERE made_at < now() - %(days)s * interval '1 day';
