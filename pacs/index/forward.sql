-- name: cursor
-- Up to where the change feed has been looked at; locked, so that one looks at a time.
SELECT (value #>> '{}')::bigint AS seq FROM node_state WHERE key = 'forward_cursor' FOR UPDATE;

-- name: move_cursor
UPDATE node_state SET value = to_jsonb(%(seq)s::bigint), changed_at = now() WHERE key = 'forward_cursor';

-- name: skip
-- There is no rule: all that has come is past.
UPDATE node_state SET value = to_jsonb(f.seq), changed_at = now()
FROM (SELECT max(seq) AS seq FROM change_feed) AS f
WHERE key = 'forward_cursor' AND f.seq > (value #>> '{}')::bigint;

-- name: arrived
-- What the feed says was stored since.
SELECT seq, action, sop_instance_uid FROM change_feed WHERE seq > %(seq)s ORDER BY seq LIMIT %(limit)s;

-- name: enqueue
-- Instances that a rule matched, unless they came from where they would go, or are results that it does not want.
INSERT INTO forward_item (destination, rule, study_uid, sop_instance_uid, object_name)
SELECT %(destination)s, %(rule)s, s.study_uid, i.sop_instance_uid, i.object_name
FROM instance i JOIN study s ON s.pk = i.study_pk
WHERE i.pk = ANY(%(pks)s) AND NOT i.hidden AND i.peer <> %(destination)s
  AND (%(results)s OR i.door <> 'ai') AND (%(sources)s::text[] = '{}' OR i.peer = ANY(%(sources)s))
ORDER BY i.pk
ON CONFLICT (destination, object_name) DO NOTHING;

-- name: judge
-- What a rule would do with instances that it matched, by reason.
SELECT CASE WHEN i.peer = %(destination)s THEN 'came from there'
            WHEN NOT %(results)s AND i.door = 'ai' THEN 'result of a model'
            WHEN NOT (%(sources)s::text[] = '{}' OR i.peer = ANY(%(sources)s)) THEN 'other sender'
            ELSE 'forward' END AS what, count(*) AS instances
FROM instance i WHERE i.pk = ANY(%(pks)s) AND NOT i.hidden GROUP BY 1 ORDER BY 1;

-- name: due
-- Destinations for which something waits, and whose breaker lets it through.
SELECT DISTINCT i.destination FROM forward_item i LEFT JOIN forward_destination d ON d.name = i.destination
WHERE i.state = 'waiting' AND i.due_at <= now() AND (i.lease_until IS NULL OR i.lease_until < now())
  AND (d.retry_at IS NULL OR d.retry_at <= now());

-- name: lease
-- The next objects for a destination, ours for a while, with what is needed to send them; none where it was deleted.
WITH taken AS (
    UPDATE forward_item SET lease_until = now() + %(seconds)s * interval '1 second'
    WHERE id IN (SELECT id FROM forward_item
                 WHERE destination = %(destination)s AND state = 'waiting' AND due_at <= now()
                   AND (lease_until IS NULL OR lease_until < now())
                 ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    RETURNING id, object_name)
SELECT t.id, i.pk, i.sop_class_uid, i.sop_instance_uid, i.transfer_syntax_uid, s.study_uid, s.patient_id, i.size
FROM taken t LEFT JOIN instance i ON i.object_name = t.object_name LEFT JOIN study s ON s.pk = i.study_pk
ORDER BY t.id;

-- name: renew
UPDATE forward_item SET lease_until = now() + %(seconds)s * interval '1 second'
WHERE id = ANY(%(ids)s) AND state = 'waiting' AND lease_until IS NOT NULL;

-- name: sent
UPDATE forward_item SET state = 'sent', done_at = now(), lease_until = NULL, message = '' WHERE id = ANY(%(ids)s);

-- name: dropped
UPDATE forward_item SET state = 'dropped', done_at = now(), lease_until = NULL, message = 'deleted or replaced meanwhile'
WHERE id = ANY(%(ids)s);

-- name: failed
-- The destination did not take this one: tried again later, and in the end by hand only.
UPDATE forward_item SET attempts = attempts + 1, lease_until = NULL, message = %(message)s,
    state = CASE WHEN %(final)s OR attempts + 1 >= %(most)s THEN 'dead' ELSE 'waiting' END,
    done_at = CASE WHEN %(final)s OR attempts + 1 >= %(most)s THEN now() END,
    due_at = now() + %(first)s * power(4, attempts) * interval '1 second'
WHERE id = %(id)s AND state = 'waiting';

-- name: give_back
-- Not tried after all.
UPDATE forward_item SET lease_until = NULL WHERE id = ANY(%(ids)s) AND state = 'waiting';

-- name: trip
-- The destination failed as such: it is left alone for a while, longer each time.
INSERT INTO forward_destination (name, failures, retry_at, message)
VALUES (%(destination)s, 1, now() + %(first)s * interval '1 second', %(message)s)
ON CONFLICT (name) DO UPDATE SET failures = forward_destination.failures + 1, message = excluded.message, changed_at = now(),
    retry_at = now() + least(%(first)s * power(2, least(forward_destination.failures, 20)), %(longest)s) * interval '1 second';

-- name: close
-- The destination works.
UPDATE forward_destination SET failures = 0, retry_at = NULL, message = '', changed_at = now()
WHERE name = %(destination)s AND failures > 0;

-- name: dead
-- Objects that were given up, oldest first.
SELECT id, destination, rule, study_uid, sop_instance_uid, attempts, message, made_at, done_at FROM forward_item
WHERE state = 'dead' AND (%(destination)s = '' OR destination = %(destination)s) ORDER BY id LIMIT %(limit)s;

-- name: replay
-- Given up, to be tried again from the beginning.
UPDATE forward_item SET state = 'waiting', attempts = 0, due_at = now(), done_at = NULL, message = ''
WHERE state = 'dead' AND (%(everything)s OR id = ANY(%(ids)s)) AND (%(destination)s = '' OR destination = %(destination)s)
RETURNING destination;

-- name: reopen
-- Whoever replays by hand has seen to the destination.
UPDATE forward_destination SET retry_at = NULL WHERE name = ANY(%(destinations)s);

-- name: board
-- Each destination with what waits, went and was given up.
SELECT coalesce(d.name, i.destination) AS destination, coalesce(i.waiting, 0) AS waiting, coalesce(i.sent, 0) AS sent,
       coalesce(i.dead, 0) AS dead, coalesce(d.failures, 0) AS failures, d.retry_at, coalesce(d.message, '') AS message
FROM (SELECT destination, count(*) FILTER (WHERE state = 'waiting') AS waiting,
             count(*) FILTER (WHERE state = 'sent') AS sent, count(*) FILTER (WHERE state = 'dead') AS dead
      FROM forward_item GROUP BY destination) AS i
FULL JOIN forward_destination d ON d.name = i.destination ORDER BY 1;

-- name: prune
-- What went a while ago is forgotten.
DELETE FROM forward_item WHERE id IN (
    SELECT id FROM forward_item WHERE state IN ('sent', 'dropped') AND done_at < now() - interval '7 days'
    ORDER BY done_at LIMIT 10000);
