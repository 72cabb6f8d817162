-- name: waiting
-- Instances behind a place that are derived and not indexed under this list of attributes.
SELECT d.instance_pk, d.metadata FROM instance_derived AS d
WHERE d.instance_pk > %(after)s AND NOT EXISTS (
    SELECT FROM indexed_instance AS x WHERE x.instance_pk = d.instance_pk AND x.attributes = %(attributes)s)
ORDER BY d.instance_pk LIMIT %(limit)s;

-- name: clear
-- What was indexed of these under another list.
DELETE FROM indexed_value WHERE instance_pk = ANY(%(pks)s);

-- name: add
-- Values of instances, row by row.
INSERT INTO indexed_value (instance_pk, attribute, value)
SELECT * FROM unnest(%(pks)s::bigint[], %(attributes)s::text[], %(values)s::text[]);

-- name: done
-- These are indexed now.
INSERT INTO indexed_instance (instance_pk, attributes) SELECT unnest(%(pks)s::bigint[]), %(attributes)s
ON CONFLICT (instance_pk) DO UPDATE SET attributes = EXCLUDED.attributes;

-- name: gone
-- Some instances that were indexed and are no more, or are not wanted any more.
DELETE FROM indexed_instance WHERE instance_pk IN (
    SELECT x.instance_pk FROM indexed_instance AS x
    WHERE %(all)s OR NOT EXISTS (SELECT FROM instance AS i WHERE i.pk = x.instance_pk) LIMIT %(limit)s)
RETURNING instance_pk;

-- name: settled_before
-- The last instance that was stored long enough ago that none before it can still appear.
SELECT coalesce(max(pk), 0) FROM (
    SELECT pk FROM instance WHERE stored_at < now() - interval '2 minutes' ORDER BY stored_at DESC LIMIT 1) AS last;

-- name: say
-- Up to where the index is whole, for searches.
INSERT INTO node_state (key, value) VALUES ('indexed_attributes', to_jsonb(%(attributes)s::text))
ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, changed_at = now();

-- name: whole
-- Whether all that was stored lately at the latest is indexed under this list.
SELECT EXISTS (SELECT FROM node_state WHERE key = 'indexed_attributes' AND value = to_jsonb(%(attributes)s::text));
