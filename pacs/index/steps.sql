-- name: add
-- A step that has begun; nothing where its UID is known.
INSERT INTO performed_step (sop_instance_uid, state, peer, address, attributes)
VALUES (%(sop_instance_uid)s, %(state)s, %(peer)s, %(address)s, %(attributes)s)
ON CONFLICT (sop_instance_uid) DO NOTHING
RETURNING id;

-- name: studies
INSERT INTO performed_study (study_uid, step)
SELECT study_uid, %(id)s FROM unnest(%(study_uids)s::text[]) AS study_uid ON CONFLICT DO NOTHING;

-- name: lock
SELECT id, state, attributes FROM performed_step WHERE sop_instance_uid = %(sop_instance_uid)s FOR UPDATE;

-- name: change
UPDATE performed_step SET state = %(state)s, attributes = %(attributes)s,
    ended_at = CASE WHEN %(state)s <> 'IN PROGRESS' THEN now() END
WHERE id = %(id)s;

-- name: gaps
-- What a completed step names and we have not.
INSERT INTO performed_gap (study_uid, sop_instance_uid, step)
SELECT study_uid, named, %(id)s
FROM unnest(%(study_uids)s::text[]) AS study_uid, unnest(%(instances)s::text[]) AS named
WHERE NOT EXISTS (SELECT FROM instance i WHERE i.sop_instance_uid = named)
ON CONFLICT DO NOTHING;

-- name: arrived
-- What was missing and is here now.
DELETE FROM performed_gap g USING instance i WHERE i.sop_instance_uid = g.sop_instance_uid RETURNING g.study_uid;

-- name: open_ledger
-- The relay may not have told the ledger of these studies yet.
INSERT INTO ai_study (study_pk, study_uid, state, change_seq)
SELECT pk, study_uid, 'open', change_seq FROM study WHERE study_uid = ANY(%(study_uids)s) AND change_seq > 0
ON CONFLICT (study_pk) DO NOTHING;

-- name: incomplete
-- The ledger: these studies lack what a completed step names.
UPDATE ai_study a SET state = CASE WHEN a.state IN ('confirmed', 'reopened') THEN 'reopened' ELSE 'open' END,
    confirmed_at = NULL, opened_at = CASE WHEN a.state = 'confirmed' THEN now() ELSE a.opened_at END,
    missing = g.words, evidence = jsonb_build_object('signal', 'mpps_missing', 'instances', g.instances)
FROM (SELECT study_uid, count(*) AS instances,
             jsonb_agg('instance ' || sop_instance_uid || ' of a completed procedure step is not stored'
                       ORDER BY sop_instance_uid) AS words
      FROM performed_gap WHERE study_uid = ANY(%(study_uids)s) GROUP BY study_uid) AS g
WHERE a.study_uid = g.study_uid;

-- name: complete
-- The ledger: all that completed steps name of these studies is here, and no step is in progress: a positive signal.
UPDATE ai_study a SET state = 'confirmed', confirmed_at = now(), change_seq = s.change_seq, claim_until = NULL,
    missing = '[]', evidence = jsonb_build_object('signal', 'mpps', 'steps', t.steps, 'last_original_at', s.changed_at)
FROM study s, LATERAL (
    SELECT jsonb_agg(p.sop_instance_uid ORDER BY p.id) AS steps FROM performed_study q JOIN performed_step p ON p.id = q.step
    WHERE q.study_uid = s.study_uid AND p.state = 'COMPLETED') AS t
WHERE s.pk = a.study_pk AND a.study_uid = ANY(%(study_uids)s) AND a.wait_until IS NULL AND t.steps IS NOT NULL
  AND NOT (a.state = 'confirmed' AND a.change_seq = s.change_seq)
  AND NOT EXISTS (SELECT FROM unfinished_study u WHERE u.study_uid = a.study_uid)
  AND NOT EXISTS (SELECT FROM commitment_gap g WHERE g.study_uid = a.study_uid)
RETURNING a.study_uid;

-- name: wake_planner
SELECT pg_notify('ai_study', '');

-- name: prune
-- Steps that began three months ago; what they say is missing goes with them.
DELETE FROM performed_step WHERE id IN (
    SELECT id FROM performed_step WHERE created_at < now() - interval '90 days' ORDER BY id LIMIT 1000);
