-- name: store
-- A batch in one transaction and one round trip; what it answers is said in migrations (functions.sql).
SELECT outcome, known_object, known_size, known_seconds FROM store_objects(%s);

-- name: store_further
-- The same for objects whose series are there; raises no_data_found where one is not.
SELECT outcome, known_object, known_size, known_seconds FROM store_further(%s);

-- name: replace
-- One object whose file is durable, in the place of the one that has its UID.
SELECT replace_object(%s, %s);

-- name: committed
-- Which of these objects are in the index.
SELECT object_name FROM instance WHERE object_name = ANY(%s);

-- name: still_running
-- Whether a backend that we lost sight of may still commit.
SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND application_name = current_setting('application_name');

-- name: drop
-- Take an object back out whose file did not become durable: nobody was told that it is stored.
SELECT count(*) FROM remove_instances(ARRAY(SELECT pk FROM instance WHERE object_name = %s), 'dropped');

-- name: set_aside
-- Remember a newcomer under a UID that is taken; nothing when the same newcomer is known already.
INSERT INTO conflict (study_uid, series_uid, sop_class_uid, sop_instance_uid, object_name, size, data_sha256, door, peer,
                      refusal_id)
VALUES (%(study_uid)s, %(series_uid)s, %(sop_class_uid)s, %(sop_instance_uid)s, %(object_name)s, %(size)s,
        %(data_sha256)s, %(door)s, %(peer)s, %(refusal_id)s)
ON CONFLICT (sop_instance_uid, data_sha256) DO NOTHING
RETURNING id;

-- name: ring
-- Wake the relay. Sent outside the storing transaction: NOTIFY makes commits queue behind one lock.
SELECT pg_notify('outbox', 'stored');
