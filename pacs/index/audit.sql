-- name: add
-- One access. Nothing ever changes or deletes these rows. Who writes it may not know the patient: it is looked up here,
-- off everybody's way; of a study that is gone in the rows about it. `listed` are the studies that a list showed: of one
-- patient, or of several, who are then named in the detail.
WITH named AS (
    SELECT coalesce(nullif(%(study_uid)s::text, ''),
                    (SELECT study_uid FROM instance JOIN study ON study.pk = study_pk
                     WHERE sop_instance_uid = nullif(%(sop_instance_uid)s::text, '')), '') AS study_uid
), listed AS (
    SELECT count(DISTINCT patient_id) AS patients, min(patient_id) AS patient_id, jsonb_agg(DISTINCT patient_id) AS ids,
           count(*) AS studies, min(study_uid) AS study_uid
    FROM study WHERE study_uid = ANY(%(listed)s::text[]) AND patient_id <> ''
)
INSERT INTO audit (at, door, actor, address, action, outcome, patient_id, study_uid, series_uid, sop_instance_uid, detail)
SELECT %(at)s, %(door)s, %(actor)s, %(address)s, %(action)s, %(outcome)s,
       coalesce(nullif(%(patient_id)s::text, ''),
                CASE WHEN listed.patients = 1 THEN listed.patient_id END,
                (SELECT patient_id FROM study WHERE study_uid = nullif(named.study_uid, '')),
                (SELECT patient_id FROM audit WHERE study_uid = nullif(named.study_uid, '') AND patient_id <> ''
                 ORDER BY id DESC LIMIT 1), ''),
       CASE WHEN named.study_uid = '' AND listed.studies = 1 THEN listed.study_uid ELSE named.study_uid END,
       %(series_uid)s, %(sop_instance_uid)s,
       %(detail)s::jsonb || CASE WHEN listed.patients > 1 THEN jsonb_build_object('patients', listed.ids) ELSE '{}' END
FROM named, listed;

-- name: find
-- Who did what, newest first; each part of the question may be left out. A patient is also found in lists.
SELECT id, at, door, actor, address, action, outcome, patient_id, study_uid, series_uid, sop_instance_uid, detail
FROM audit
WHERE (%(patient)s::text IS NULL OR patient_id = %(patient)s
       OR (detail ? 'patients' AND detail -> 'patients' @> to_jsonb(%(patient)s::text)))
  AND (%(study)s::text IS NULL OR study_uid = %(study)s)
  AND (%(user)s::text IS NULL OR actor = %(user)s)
  AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR at < %(until)s)
  AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC LIMIT %(limit)s;

-- name: allocated
-- The highest number that was given to a row, committed or not.
SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('audit', 'id')::regclass), 0);

-- name: writers
-- The transactions that may still commit rows. They take this lock before their rows get numbers.
SELECT pid, virtualtransaction FROM pg_locks
WHERE relation = 'audit'::regclass AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database());

-- name: lock
-- One sealer at a time, until its transaction ends.
SELECT pg_advisory_xact_lock(hashtext('audit_seal'));

-- name: head
-- The last seal.
SELECT audit_id, hash FROM audit_seal ORDER BY audit_id DESC LIMIT 1;

-- name: unsealed
-- How many rows come after a number.
SELECT count(*) FROM audit WHERE id > %(after)s;

-- name: rows
-- What is sealed of the rows after one number and up to another, in order (Canonical in pacs/services/auditchain.py).
SELECT id, (extract(epoch FROM at) * 1000000)::bigint, door, actor, address, action, outcome, patient_id, study_uid,
       series_uid, sop_instance_uid, detail::text
FROM audit WHERE id > %(after)s AND id <= %(upto)s ORDER BY id LIMIT %(limit)s;

-- name: seals
-- Seals after a number, in order.
SELECT audit_id, hash FROM audit_seal WHERE audit_id > %(after)s ORDER BY audit_id LIMIT %(limit)s;

-- name: seal
-- Seals of rows, by their numbers.
INSERT INTO audit_seal (audit_id, hash) SELECT * FROM unnest(%(ids)s::bigint[], %(hashes)s::bytea[]);
