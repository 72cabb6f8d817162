-- name: note
-- Originals of these studies arrived.
INSERT INTO ai_study (study_pk, study_uid, state, change_seq)
SELECT pk, study_uid, 'open', change_seq FROM study WHERE study_uid = ANY(%(study_uids)s) AND change_seq > 0
ORDER BY pk
ON CONFLICT (study_pk) DO UPDATE SET
    opened_at = CASE WHEN ai_study.state = 'confirmed' THEN now() ELSE ai_study.opened_at END,
    state = CASE WHEN ai_study.state = 'confirmed' OR ai_study.planned_seq <> 0 THEN 'reopened' ELSE 'open' END,
    change_seq = excluded.change_seq, wait_until = NULL, claim_until = NULL, confirmed_at = NULL, evidence = '{}'
WHERE ai_study.change_seq <> excluded.change_seq;

-- name: likely
-- Every series has been quiet for a while.
UPDATE ai_study a SET state = 'likely',
    evidence = jsonb_build_object('signal', 'series_quiet', 'seconds', %(series_quiet)s::float8, 'last_original_at', s.changed_at)
FROM study s
WHERE s.pk = a.study_pk AND a.state IN ('open', 'reopened') AND a.change_seq = s.change_seq
  AND s.changed_at <= now() - %(series_quiet)s * interval '1 second'
  AND NOT EXISTS (SELECT FROM commitment_gap g WHERE g.study_uid = a.study_uid)
  AND NOT EXISTS (SELECT FROM unfinished_study u WHERE u.study_uid = a.study_uid)
RETURNING a.study_uid;

-- name: confirm
-- The study has been quiet long enough, or never goes quiet, or what was missing will not come.
UPDATE ai_study a SET state = 'confirmed', confirmed_at = now(), change_seq = s.change_seq, claim_until = NULL,
    planned_seq = CASE WHEN a.wait_until IS NULL THEN a.planned_seq ELSE -1 END, wait_until = NULL,
    evidence = jsonb_build_object(
        'signal', CASE WHEN a.wait_until IS NOT NULL THEN 'wait_over'
                       WHEN s.changed_at <= now() - %(study_quiet)s * interval '1 second' THEN 'study_quiet'
                       ELSE 'max_wait' END,
        'quiet_seconds', round(extract(epoch FROM now() - s.changed_at)::numeric, 1),
        'last_original_at', s.changed_at)
FROM study s
WHERE s.pk = a.study_pk AND a.state <> 'confirmed'
  AND CASE WHEN a.wait_until IS NOT NULL THEN a.wait_until <= now()
           ELSE (s.changed_at <= now() - %(study_quiet)s * interval '1 second' AND a.change_seq = s.change_seq
                 AND NOT EXISTS (SELECT FROM commitment_gap g WHERE g.study_uid = a.study_uid)
                 AND NOT EXISTS (SELECT FROM unfinished_study u WHERE u.study_uid = a.study_uid))
                OR a.opened_at <= now() - %(max_wait)s * interval '1 second' END
RETURNING a.study_uid;

-- name: wake_planner
SELECT pg_notify('ai_study', '');

-- name: states
SELECT state, count(*) AS studies FROM ai_study GROUP BY state;
