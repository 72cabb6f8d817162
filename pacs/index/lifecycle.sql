-- name: study
-- Everything of a study, superseded results too.
SELECT i.pk FROM instance i JOIN study s ON s.pk = i.study_pk WHERE study_uid = %(study_uid)s ORDER BY i.pk;

-- name: series
-- Everything of a series.
SELECT i.pk FROM instance i JOIN series r ON r.pk = i.series_pk JOIN study s ON s.pk = i.study_pk
WHERE study_uid = %(study_uid)s AND series_uid = %(series_uid)s ORDER BY i.pk;

-- name: instance
-- One instance.
SELECT i.pk FROM instance i JOIN series r ON r.pk = i.series_pk JOIN study s ON s.pk = i.study_pk
WHERE sop_instance_uid = %(sop_instance_uid)s AND study_uid = %(study_uid)s AND series_uid = %(series_uid)s;

-- name: lock_patient
-- Holds and deletes of a patient's studies come one after another. The patient first: that is the order of locks.
SELECT patient.pk FROM patient JOIN study ON patient_pk = patient.pk
WHERE study_uid = %(study_uid)s FOR UPDATE OF patient;

-- name: held
-- Whether the study is under a legal hold.
SELECT legal_hold FROM study WHERE study_uid = %(study_uid)s;

-- name: hold
-- Turn the legal hold of a study on or off.
UPDATE study SET legal_hold = %(legal_hold)s WHERE study_uid = %(study_uid)s RETURNING patient_id;

-- name: remove
-- Out of the index, with all that this changes (functions.sql in migrations).
SELECT patient_id, study_uid, series_uid, sop_instance_uid FROM remove_instances(%(pks)s, %(cause)s);

-- name: graves
-- Objects whose grace time is over and that nothing in the index names; none while a backup saves them.
SELECT pk, object_name FROM tombstone
WHERE made_at < now() - %(seconds)s * interval '1 second'
  AND NOT EXISTS (SELECT FROM instance WHERE instance.object_name = tombstone.object_name)
  AND NOT EXISTS (SELECT FROM node_state WHERE key = 'backup' AND value ->> 'state' = 'running'
                  AND changed_at > now() - interval '10 minutes')
ORDER BY pk LIMIT %(limit)s;

-- name: close_graves
-- Their files are gone.
DELETE FROM tombstone WHERE pk = ANY(%(pks)s);
