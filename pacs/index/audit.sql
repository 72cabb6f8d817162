-- name: record
-- One access, in the transaction that it is made of. Nothing ever changes or deletes these rows.
INSERT INTO audit (at, door, actor, address, action, outcome, patient_id, study_uid, series_uid, sop_instance_uid, detail)
VALUES (%(at)s, %(door)s, %(actor)s, %(address)s, %(action)s, %(outcome)s,
        coalesce(nullif(%(patient_id)s::text, ''),
                 (SELECT patient_id FROM study WHERE study_uid = nullif(%(study_uid)s::text, '')), ''),
        %(study_uid)s, %(series_uid)s, %(sop_instance_uid)s, %(detail)s::jsonb);

-- name: by_index
-- For the lookups of `add`: a plan made while the tables were empty would read them whole.
SET LOCAL enable_seqscan = off;

-- name: add
-- Accesses of a moment ago, a JSON array. Who noted them may not know the patient, who is looked up here, off everybody's
-- way; of a study that is gone in the rows about it. `listed` are the studies that a list showed: of one patient, or of
-- several, who are then named in the detail.
WITH given AS (
    SELECT place, g.*
    FROM jsonb_array_elements(%(rows)s::jsonb) WITH ORDINALITY AS i (item, place),
         jsonb_to_record(item) AS g (at timestamptz, door text, actor text, address text, action text, outcome text,
                                     patient_id text, study_uid text, series_uid text, sop_instance_uid text,
                                     listed text[], detail jsonb)
), named AS (
    SELECT place, coalesce(nullif(given.study_uid, ''),
                           (SELECT study_uid FROM instance JOIN study ON study.pk = study_pk
                            WHERE sop_instance_uid = nullif(given.sop_instance_uid, '')), '') AS study_uid
    FROM given
)
INSERT INTO audit (at, door, actor, address, action, outcome, patient_id, study_uid, series_uid, sop_instance_uid, detail)
SELECT at, door, actor, address, action, outcome,
       coalesce(nullif(given.patient_id, ''),
                CASE WHEN shown.patients = 1 THEN shown.patient_id END,
                (SELECT patient_id FROM study WHERE study_uid = nullif(named.study_uid, '')),
                (SELECT patient_id FROM audit AS earlier
                 WHERE earlier.study_uid = nullif(named.study_uid, '') AND patient_id <> '' ORDER BY id DESC LIMIT 1), ''),
       CASE WHEN named.study_uid = '' AND shown.studies = 1 THEN shown.study_uid ELSE named.study_uid END,
       series_uid, sop_instance_uid,
       detail || CASE WHEN shown.patients > 1 THEN jsonb_build_object('patients', shown.ids) ELSE '{}' END
FROM given JOIN named USING (place), LATERAL (
    SELECT count(DISTINCT patient_id) AS patients, min(patient_id) AS patient_id, jsonb_agg(DISTINCT patient_id) AS ids,
           count(*) AS studies, min(study_uid) AS study_uid
    FROM study WHERE study_uid = ANY(given.listed) AND patient_id <> ''
) AS shown
ORDER BY place;

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

-- name: to_export
-- Sealed rows that the collector has not taken, in order.
SELECT id, at, door, actor, address, action, outcome, patient_id, study_uid, series_uid, sop_instance_uid, detail
FROM audit
WHERE id > coalesce((SELECT (value ->> 'id')::bigint FROM node_state WHERE key = 'audit_export'), 0)
  AND id <= (SELECT max(audit_id) FROM audit_seal)
ORDER BY id LIMIT %(limit)s;

-- name: export_lag
-- How many they are.
SELECT count(*) AS rows FROM audit_seal
WHERE audit_id > coalesce((SELECT (value ->> 'id')::bigint FROM node_state WHERE key = 'audit_export'), 0);

-- name: exported
-- The collector has taken all up to here.
INSERT INTO node_state (key, value) VALUES ('audit_export', %(value)s)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, changed_at = now();

-- name: length
-- About how many rows the chain has.
SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'audit_seal'::regclass;
