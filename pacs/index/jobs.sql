-- name: study
-- The study's change counter, and its row locked against a plan by anybody else.
SELECT s.pk, s.change_seq FROM study s WHERE s.study_uid = %(study_uid)s;

-- name: lock_ledger
-- Plans of one study come one after another.
SELECT change_seq, planned_seq FROM ai_study WHERE study_uid = %(study_uid)s FOR UPDATE;

-- name: open_ledger
-- An explicit run may ask for a study that the relay has not seen yet, or that holds no original.
INSERT INTO ai_study (study_pk, study_uid, state, change_seq)
SELECT pk, study_uid, 'open', change_seq FROM study WHERE study_uid = %(study_uid)s
ON CONFLICT (study_pk) DO NOTHING;

-- name: insert_job
-- A job to run; nothing when its key is known.
INSERT INTO ai_job (job_key, state, model, version, digest, study_uid, series_uids, priority, inputs, parameters,
                    evidence, max_attempts, timeout_s, queued_at)
VALUES (%(job_key)s, 'QUEUED', %(model)s, %(version)s, %(digest)s, %(study_uid)s, %(series_uids)s, %(priority)s,
        %(inputs)s, %(parameters)s, %(evidence)s, %(max_attempts)s, %(timeout_s)s, now())
ON CONFLICT (job_key) DO NOTHING
RETURNING id;

-- name: upsert_decision
-- A decision not to run, or not yet; said again it changes words, not identity.
INSERT INTO ai_job (job_key, state, model, version, digest, study_uid, series_uids, priority, evidence, max_attempts,
                    timeout_s, reason, message, finished_at)
VALUES (%(job_key)s, %(state)s, %(model)s, %(version)s, %(digest)s, %(study_uid)s, %(series_uids)s, %(priority)s,
        %(evidence)s, %(max_attempts)s, %(timeout_s)s, %(reason)s, %(message)s,
        CASE WHEN %(state)s = 'SKIPPED' THEN now() END)
ON CONFLICT (job_key) DO UPDATE SET state = excluded.state, version = excluded.version, digest = excluded.digest,
    evidence = excluded.evidence, reason = excluded.reason, message = excluded.message,
    finished_at = excluded.finished_at
RETURNING id;

-- name: drop_decisions
-- Decisions of earlier plans that no longer hold, of one model or of all.
DELETE FROM ai_job
WHERE study_uid = %(study_uid)s AND job_key LIKE 'decision:%%' AND NOT job_key = ANY(%(kept)s)
  AND (%(model)s = '' OR model = %(model)s);

-- name: known_job
-- A job by its key, and how many of its results are no longer stored.
SELECT j.id, j.state, j.reason, j.priority,
       (SELECT count(*) FROM ai_result r WHERE r.job_id = j.id
          AND NOT EXISTS (SELECT FROM instance i WHERE i.sop_instance_uid = r.sop_instance_uid)) AS results_gone
FROM ai_job j WHERE j.job_key = %(job_key)s FOR UPDATE OF j;

-- name: cancel_outdated
-- Jobs on earlier inputs of the same model and series that have not begun to store.
UPDATE ai_job SET state = 'CANCELLED', reason = 'inputs_changed', finished_at = now(), lease_until = NULL,
    message = 'Originals arrived after this job was planned; a newer job replaces it.'
WHERE study_uid = %(study_uid)s AND model = %(model)s AND series_uids = %(series_uids)s AND job_key <> %(job_key)s
  AND state IN ('QUEUED', 'RUNNING', 'RETRY_WAIT', 'DEAD')
RETURNING id;

-- name: enqueue
-- Tell the relay to publish jobs.
INSERT INTO outbox (topic, payload)
SELECT 'job', jsonb_build_object('job', id, 'priority', priority) FROM ai_job WHERE id = ANY(%(ids)s) ORDER BY id;

-- name: wake_relay
-- The clerk listens.
SELECT pg_notify('outbox', 'job');

-- name: tell
-- Whoever shows jobs listens here.
SELECT pg_notify('ai_jobs', %(word)s);

-- name: planned
-- The plan of a change is made.
UPDATE ai_study SET planned_seq = change_seq, claim_until = NULL, missing = %(missing)s,
    state = CASE WHEN %(waits)s THEN 'likely' ELSE state END,
    wait_until = CASE WHEN %(waits)s THEN now() + %(wait_seconds)s * interval '1 second' END
WHERE study_uid = %(study_uid)s;

-- name: raise_priority
-- An explicit run is more urgent than what was planned.
UPDATE ai_job SET priority = %(priority)s WHERE id = %(id)s AND state = 'QUEUED';

-- name: queue_again
-- From a state that lets it: attempts count from nought.
UPDATE ai_job SET state = 'QUEUED', attempts = 0, reason = '', message = '', due_at = NULL, lease_until = NULL,
    lease_owner = '', finished_at = NULL, queued_at = now()
WHERE id = %(id)s AND state = ANY(%(sources)s) AND job_key NOT LIKE 'decision:%%'
RETURNING id;

-- name: cancel
-- By a person. A running one notices at its next heartbeat.
UPDATE ai_job SET state = 'CANCELLED', reason = %(reason)s, message = %(message)s, finished_at = now(),
    lease_until = NULL, due_at = NULL
WHERE id = %(id)s AND state = ANY(%(sources)s)
RETURNING id;

-- name: lease
-- Takes a queued job, or one whose holder's lease has ended. Nothing starts during maintenance, and nothing runs
-- more often than it may.
UPDATE ai_job SET state = 'RUNNING', fence = fence + 1, attempts = attempts + 1, lease_owner = %(owner)s,
    lease_until = now() + %(seconds)s * interval '1 second', started_at = now(), finished_at = NULL, due_at = NULL,
    reason = '', message = '',
    predecessor = coalesce(predecessor, (
        SELECT coalesce(jsonb_agg(jsonb_build_object('role', r.role, 'sop_class_uid', r.sop_class_uid,
                   'sop_instance_uid', r.sop_instance_uid, 'series_uid', r.series_uid) ORDER BY r.sop_instance_uid), '[]')
        FROM ai_result r JOIN ai_job o ON o.id = r.job_id
        WHERE o.study_uid = ai_job.study_uid AND o.model = ai_job.model AND o.series_uids = ai_job.series_uids
          AND o.id < ai_job.id AND o.state = 'SUCCEEDED'))
WHERE id = %(id)s AND attempts < max_attempts
  AND (state = 'QUEUED' OR (state IN ('RUNNING', 'STORING') AND lease_until < now()))
  AND NOT EXISTS (SELECT FROM node_state WHERE key = 'maintenance' AND value ->> 'state' = 'on')
RETURNING id, fence, job_key, model, version, digest, study_uid, series_uids, priority, inputs, parameters, evidence,
    frozen_at, predecessor, attempts, max_attempts, timeout_s;

-- name: renew
-- True while the lease is still this holder's.
UPDATE ai_job SET lease_until = now() + %(seconds)s * interval '1 second'
WHERE id = %(id)s AND fence = %(fence)s AND lease_owner = %(owner)s AND state IN ('RUNNING', 'STORING')
RETURNING id;

-- name: paused
-- Maintenance is on: nothing starts.
SELECT EXISTS (SELECT FROM node_state WHERE key = 'maintenance' AND value ->> 'state' = 'on') AS paused;

-- name: begin_storing
-- The fence guards: whoever took the job over raised it. Nothing is stored into a study that was deleted.
UPDATE ai_job SET state = 'STORING', lease_until = now() + %(seconds)s * interval '1 second'
WHERE id = %(id)s AND fence = %(fence)s AND lease_owner = %(owner)s AND state = 'RUNNING'
  AND EXISTS (SELECT FROM study WHERE study.study_uid = ai_job.study_uid)
RETURNING id;

-- name: succeed
UPDATE ai_job SET state = 'SUCCEEDED', lease_until = NULL, finished_at = now(), reason = '', message = '',
    provider = %(provider)s, timings = %(timings)s, evidence = evidence || %(evidence)s
WHERE id = %(id)s AND fence = %(fence)s AND lease_owner = %(owner)s AND state = 'STORING'
RETURNING study_uid, model, series_uids;

-- name: add_result
INSERT INTO ai_result (sop_instance_uid, job_id, role, sop_class_uid, series_uid)
VALUES (%(sop_instance_uid)s, %(job_id)s, %(role)s, %(sop_class_uid)s, %(series_uid)s)
ON CONFLICT (sop_instance_uid) DO UPDATE SET stored_at = now();

-- name: supersede
-- Earlier results of the same model on the same series: still there, no longer in default queries.
WITH old AS (
    UPDATE ai_job SET state = 'SUPERSEDED'
    WHERE study_uid = %(study_uid)s AND model = %(model)s AND series_uids = %(series_uids)s AND id < %(id)s
      AND state = 'SUCCEEDED'
    RETURNING id
), results AS (
    UPDATE ai_result SET state = 'superseded' WHERE job_id IN (SELECT id FROM old) RETURNING sop_instance_uid
)
UPDATE instance SET hidden = true WHERE sop_instance_uid IN (SELECT sop_instance_uid FROM results);

-- name: fail
-- An attempt failed: wait and try again, or give up.
UPDATE ai_job SET state = %(state)s, lease_until = NULL, reason = %(reason)s, message = %(message)s,
    provider = coalesce(nullif(%(provider)s, ''), provider), timings = %(timings)s,
    due_at = CASE WHEN %(state)s = 'RETRY_WAIT' THEN now() + %(delay)s * interval '1 second' END,
    finished_at = CASE WHEN %(state)s <> 'RETRY_WAIT' THEN now() END
WHERE id = %(id)s AND fence = %(fence)s AND lease_owner = %(owner)s AND state = ANY(%(sources)s)
RETURNING id;

-- name: give_back
-- A worker that stops hands its job to others; the attempt does not count.
UPDATE ai_job SET state = 'QUEUED', attempts = greatest(attempts - 1, 0), lease_until = NULL, lease_owner = '',
    queued_at = now()
WHERE id = %(id)s AND fence = %(fence)s AND lease_owner = %(owner)s AND state IN ('RUNNING', 'STORING')
RETURNING id;

-- name: expire
-- Jobs whose holder is gone: to the queue again while they have attempts left.
UPDATE ai_job SET state = 'QUEUED', lease_until = NULL, lease_owner = '', queued_at = now()
WHERE state IN ('RUNNING', 'STORING') AND lease_until < now() AND attempts < max_attempts
RETURNING id;

-- name: bury
-- Jobs that took every holder with them.
UPDATE ai_job SET state = 'DEAD', lease_until = NULL, finished_at = now(), reason = 'worker_lost',
    message = 'Every worker that ran this job vanished; look at the sidecar''s log and its memory, then retry it.'
WHERE state IN ('RUNNING', 'STORING') AND lease_until < now() AND attempts >= max_attempts
RETURNING id;

-- name: release
-- Jobs whose time to be tried again has come.
UPDATE ai_job SET state = 'QUEUED', due_at = NULL, queued_at = now()
WHERE state = 'RETRY_WAIT' AND due_at <= now()
RETURNING id;

-- name: queued
-- For workers while Redis is away, and to compare with what Redis holds.
SELECT id, priority FROM ai_job WHERE state = 'QUEUED'
ORDER BY array_position(ARRAY['urgent', 'normal', 'low'], priority), id LIMIT %(limit)s;

-- name: oldest_queued
-- The job that waited longest, whatever its class.
SELECT id, priority FROM ai_job WHERE state = 'QUEUED' ORDER BY queued_at, id LIMIT 1;

-- name: unpublished
-- Queued for a while, and the relay has nothing left to publish for them.
SELECT id FROM ai_job j WHERE state = 'QUEUED' AND queued_at < now() - %(seconds)s * interval '1 second'
  AND NOT id = ANY(%(present)s)
  AND NOT EXISTS (SELECT FROM outbox o WHERE o.sent_at IS NULL AND o.topic = 'job'
                    AND (o.payload ->> 'job')::bigint = j.id);

-- name: all_queued
SELECT id, priority FROM ai_job WHERE state = 'QUEUED' ORDER BY id;

-- name: cancel_orphans
-- Jobs whose study was deleted. One that runs notices at its next heartbeat.
UPDATE ai_job j SET state = 'CANCELLED', reason = 'study_deleted', finished_at = now(), due_at = NULL, lease_until = NULL,
    message = 'The study was deleted before the job was done.'
WHERE state IN ('PLANNED', 'QUEUED', 'RUNNING', 'RETRY_WAIT')
  AND NOT EXISTS (SELECT FROM study s WHERE s.study_uid = j.study_uid)
RETURNING id;

-- name: request
INSERT INTO ai_request (study_uid, model, priority) VALUES (%(study_uid)s, %(model)s, %(priority)s)
RETURNING id;

-- name: confirm_for_request
-- An explicit run is a positive signal: nobody waits for the clock.
UPDATE ai_study SET state = 'confirmed', confirmed_at = now(), wait_until = NULL,
    evidence = jsonb_build_object('signal', 'run', 'at', now()),
    change_seq = (SELECT change_seq FROM study WHERE pk = study_pk)
WHERE study_uid = %(study_uid)s;

-- name: claim_request
-- An explicit run that nobody plans at this moment.
UPDATE ai_request SET claim_until = now() + %(seconds)s * interval '1 second', claims = claims + 1
WHERE id = (SELECT id FROM ai_request WHERE done_at IS NULL AND coalesce(claim_until, '-infinity') < now()
            ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, study_uid, model, priority;

-- name: end_hopeless_request
-- Taken several times and never planned: the ledger says why.
UPDATE ai_request SET done_at = now() WHERE id = %(id)s AND claims >= %(claims)s;

-- name: finish_request
UPDATE ai_request SET done_at = now() WHERE id = %(id)s;

-- name: claim_study
UPDATE ai_study SET claim_until = now() + %(seconds)s * interval '1 second'
WHERE study_pk = (SELECT study_pk FROM ai_study WHERE state = 'confirmed' AND planned_seq <> change_seq
                    AND coalesce(claim_until, '-infinity') < now()
                  ORDER BY confirmed_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING study_uid, change_seq, evidence ->> 'signal' AS signal;

-- name: plan_failed
-- Said in the ledger, tried again when the claim ends.
UPDATE ai_study SET evidence = evidence || jsonb_build_object('plan_error', %(message)s::text) WHERE study_uid = %(study_uid)s;

-- name: job
SELECT * FROM ai_job WHERE id = %(id)s;

-- name: list
SELECT * FROM ai_job
WHERE (%(state)s = '' OR state = %(state)s) AND (%(after)s = 0 OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s;

-- name: of_study
SELECT * FROM ai_job WHERE study_uid = %(study_uid)s ORDER BY id;

-- name: results
-- With what became of them.
SELECT r.job_id, r.role, r.sop_class_uid, r.sop_instance_uid, r.series_uid,
       CASE WHEN i.pk IS NULL THEN 'deleted' ELSE r.state END AS state
FROM ai_result r LEFT JOIN instance i ON i.sop_instance_uid = r.sop_instance_uid
WHERE r.job_id = ANY(%(ids)s) ORDER BY r.job_id, r.role, r.sop_instance_uid;

-- name: completeness
SELECT a.state, a.evidence, a.missing, a.planned_seq, a.change_seq, a.opened_at, a.confirmed_at, a.wait_until
FROM ai_study a WHERE a.study_uid = %(study_uid)s;

-- name: pending
-- Something is still to be planned or done.
SELECT EXISTS (SELECT FROM ai_request WHERE study_uid = %(study_uid)s AND done_at IS NULL)
    OR EXISTS (SELECT FROM ai_job WHERE study_uid = %(study_uid)s
                 AND state IN ('QUEUED', 'RUNNING', 'STORING', 'RETRY_WAIT')) AS pending;

-- name: figures
-- For the metrics: jobs by state and model.
SELECT state, model, count(*) AS jobs FROM ai_job GROUP BY state, model;

-- name: skip_figures
SELECT reason, count(*) AS jobs FROM ai_job WHERE state = 'SKIPPED' GROUP BY reason;

-- name: queue_age
SELECT priority, extract(epoch FROM now() - min(queued_at))::float8 AS seconds FROM ai_job WHERE state = 'QUEUED'
GROUP BY priority;
