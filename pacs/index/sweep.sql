-- name: unnamed
-- Of these objects those that nothing in the index names.
SELECT name FROM unnest(%(names)s::text[]) AS name
WHERE NOT EXISTS (SELECT FROM instance WHERE object_name = name)
  AND NOT EXISTS (SELECT FROM tombstone WHERE object_name = name);

-- name: objects
-- Instances after a place in the index, with what their files should be.
SELECT pk, object_name, size, sop_instance_uid FROM instance WHERE pk > %(after)s ORDER BY pk LIMIT %(limit)s;

-- name: objects_since
-- Instances stored after a time.
SELECT pk, object_name, size, sop_instance_uid, sha256 FROM instance
WHERE stored_at > %(since)s AND pk > %(after)s ORDER BY pk LIMIT %(limit)s;

-- name: remove
-- Out of the index: the file is not whole, and nobody was told that it is stored.
SELECT count(*) FROM remove_instances(%(pks)s, 'dropped');

-- name: studies
-- Studies after a place in the index.
SELECT pk FROM study WHERE pk > %(after)s ORDER BY pk LIMIT %(limit)s;

-- name: lock_studies
-- Nobody stores into them while they are counted.
SELECT pk FROM study WHERE pk = ANY(%(pks)s) ORDER BY study_uid FOR NO KEY UPDATE;

-- name: recount
-- Correct the counters of studies; the UIDs of what was wrong.
SELECT recount(%(pks)s);

-- name: remember
-- A fact about the node.
INSERT INTO node_state (key, value) VALUES (%(key)s, %(value)s)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, changed_at = now();

-- name: recall
-- A fact about the node, and when it was last remembered.
SELECT value, changed_at FROM node_state WHERE key = %(key)s;
