-- name: ask
-- A new request; for a while the association that brought it may report by itself.
INSERT INTO commitment (transaction_uid, peer, address, due_at)
VALUES (%(transaction_uid)s, %(peer)s, %(address)s, now() + %(grace)s * interval '1 second')
RETURNING id;

-- name: items
-- What the request names, in its order.
INSERT INTO commitment_item (commitment_id, number, sop_class_uid, sop_instance_uid)
SELECT %(id)s, number, sop_class_uid, sop_instance_uid
FROM unnest(%(classes)s::text[], %(instances)s::text[]) WITH ORDINALITY AS named (sop_class_uid, sop_instance_uid, number);

-- name: request
-- One request, locked against a second check.
SELECT id, transaction_uid, peer, address, state FROM commitment WHERE id = %(id)s FOR UPDATE;

-- name: named
-- What a request names, and the object that the index has for each.
SELECT n.number, n.sop_class_uid, n.sop_instance_uid, n.reason, h.sop_class_uid AS held_class, h.object_name, h.size,
       h.sha256, h.study_uid
FROM commitment_item n LEFT JOIN held h ON h.sop_instance_uid = n.sop_instance_uid
WHERE n.commitment_id = %(id)s ORDER BY n.number;

-- name: found
-- What the check came to.
UPDATE commitment_item n SET reason = f.reason
FROM unnest(%(numbers)s::integer[], %(reasons)s::integer[]) AS f (number, reason)
WHERE n.commitment_id = %(id)s AND n.number = f.number;

-- name: checked
UPDATE commitment SET state = 'checked', checked_at = now() WHERE id = %(id)s;

-- name: reported
UPDATE commitment SET state = 'reported', done_at = now(), message = '' WHERE id = %(id)s AND state <> 'reported';

-- name: hold
-- Somebody is at it: not due before.
UPDATE commitment SET due_at = now() + %(seconds)s * interval '1 second' WHERE id = %(id)s;

-- name: take
-- Requests that wait for their report; each is out of reach of others for a while.
UPDATE commitment SET attempts = attempts + 1,
    due_at = now() + least(%(first)s * power(2, least(attempts, 20)), %(longest)s) * interval '1 second'
WHERE id IN (SELECT id FROM commitment WHERE state IN ('asked', 'checked') AND due_at <= now()
             ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING id, peer, attempts, made_at < now() - %(patience)s * interval '1 second' AS last;

-- name: failed
-- An attempt failed; the last one for good.
UPDATE commitment SET message = %(message)s, state = CASE WHEN %(last)s THEN 'dead' ELSE state END,
    done_at = CASE WHEN %(last)s THEN now() END
WHERE id = %(id)s AND state IN ('asked', 'checked');

-- name: prune
-- Requests that are a month old; what they say is missing goes with them.
DELETE FROM commitment WHERE id IN (
    SELECT id FROM commitment WHERE made_at < now() - interval '30 days' ORDER BY id LIMIT 1000);

-- name: gaps
-- Instances of the request that are not here keep its studies from being complete.
INSERT INTO commitment_gap (study_uid, sop_instance_uid, commitment_id)
SELECT study_uid, sop_instance_uid, %(id)s
FROM unnest(%(study_uids)s::text[]) AS study_uid, unnest(%(missing)s::text[]) AS sop_instance_uid
ON CONFLICT DO NOTHING;

-- name: arrived
-- What was missing and is here now.
DELETE FROM commitment_gap g USING instance i WHERE i.sop_instance_uid = g.sop_instance_uid RETURNING g.study_uid;

-- name: open_ledger
-- The relay may not have told the ledger of these studies yet.
INSERT INTO ai_study (study_pk, study_uid, state, change_seq)
SELECT pk, study_uid, 'open', change_seq FROM study WHERE study_uid = ANY(%(study_uids)s) AND change_seq > 0
ON CONFLICT (study_pk) DO NOTHING;

-- name: incomplete
-- The ledger: these studies lack what a commitment list names.
UPDATE ai_study a SET state = CASE WHEN a.state IN ('confirmed', 'reopened') THEN 'reopened' ELSE 'open' END,
    confirmed_at = NULL, opened_at = CASE WHEN a.state = 'confirmed' THEN now() ELSE a.opened_at END,
    missing = g.words, evidence = jsonb_build_object('signal', 'commitment_missing', 'instances', g.instances)
FROM (SELECT study_uid, count(*) AS instances,
             jsonb_agg('instance ' || sop_instance_uid || ' of a storage commitment request is not stored'
                       ORDER BY sop_instance_uid) AS words
      FROM commitment_gap WHERE study_uid = ANY(%(study_uids)s) GROUP BY study_uid) AS g
WHERE a.study_uid = g.study_uid;

-- name: complete
-- The ledger: all that commitment lists name of these studies is here, a positive signal (ai.md 3).
UPDATE ai_study a SET state = 'confirmed', confirmed_at = now(), change_seq = s.change_seq, claim_until = NULL,
    missing = '[]', evidence = jsonb_build_object('signal', 'commitment', 'last_original_at', s.changed_at)
FROM study s
WHERE s.pk = a.study_pk AND a.study_uid = ANY(%(study_uids)s) AND a.wait_until IS NULL
  AND NOT (a.state = 'confirmed' AND a.change_seq = s.change_seq)
  AND NOT EXISTS (SELECT FROM commitment_gap g WHERE g.study_uid = a.study_uid)
RETURNING a.study_uid;

-- name: wake_planner
SELECT pg_notify('ai_study', '');

-- name: counts
-- How many requests wait for their report, and how many were given up.
SELECT count(*) FILTER (WHERE state IN ('asked', 'checked')) AS waiting, count(*) FILTER (WHERE state = 'dead') AS dead
FROM commitment;
