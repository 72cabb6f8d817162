-- name: unsealed
-- Whether rows wait for their number.
SELECT EXISTS (SELECT FROM change_feed WHERE seq IS NULL);

-- name: lock
-- One sealer at a time, until its transaction ends.
SELECT pg_advisory_xact_lock(hashtext('change_feed'));

-- name: seal
-- Numbers without gaps, in the order of the rows, behind those given before.
UPDATE change_feed SET seq = last + place
FROM (SELECT coalesce(max(seq), 0) AS last FROM change_feed) AS sealed,
     (SELECT id, row_number() OVER (ORDER BY id) AS place FROM change_feed WHERE seq IS NULL) AS fresh
WHERE change_feed.id = fresh.id;

-- name: since
-- What happened after a number.
SELECT seq, action, study_uid, series_uid, sop_instance_uid, at FROM change_feed
WHERE seq > %(seq)s ORDER BY seq LIMIT %(limit)s;
