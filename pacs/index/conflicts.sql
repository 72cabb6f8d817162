-- name: open
-- Newcomers under a UID that is taken, which nobody has decided on yet; oldest first.
SELECT id, study_uid, series_uid, sop_class_uid, sop_instance_uid, object_name, size, encode(data_sha256, 'hex') AS data_sha256,
       door, peer, refusal_id, state, made_at
FROM conflict WHERE state = 'open' ORDER BY id LIMIT %(limit)s;

-- name: take
-- One open conflict, held until the transaction ends.
SELECT id, study_uid, series_uid, sop_class_uid, sop_instance_uid, object_name, size, encode(data_sha256, 'hex') AS data_sha256,
       door, peer, refusal_id, state, made_at
FROM conflict WHERE id = %(id)s AND state = 'open' FOR UPDATE;

-- name: resolve
-- Somebody has decided.
UPDATE conflict SET state = %(state)s, resolved_at = now() WHERE id = %(id)s;
