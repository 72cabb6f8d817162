-- name: objects
-- Instances after a place in the index, with what their files should be.
SELECT pk, object_name, size, sop_instance_uid, sha256 FROM instance
WHERE pk > %(after)s ORDER BY pk LIMIT %(limit)s;

-- name: total
-- How many there are.
SELECT count(*) FROM instance;

-- name: sample
-- So many of them, by chance.
SELECT pk, object_name, size, sop_instance_uid, sha256 FROM instance ORDER BY random() LIMIT %(limit)s;

-- name: set_aside
-- Newcomers under a UID that is taken, which wait for a decision.
SELECT object_name, size, sop_instance_uid FROM conflict WHERE state = 'open' ORDER BY id;

-- name: unnamed
-- Of these files those that nothing in the index names.
SELECT name FROM unnest(%(names)s::text[]) AS name
WHERE NOT EXISTS (SELECT FROM instance WHERE object_name = name)
  AND NOT EXISTS (SELECT FROM tombstone WHERE object_name = name);

-- name: still
-- Whether an instance still has this object.
SELECT EXISTS (SELECT FROM instance WHERE object_name = %(name)s);
