-- name: add
-- One access. Nothing ever changes or deletes these rows.
INSERT INTO audit (at, door, actor, address, action, outcome, patient_id, study_uid, series_uid, sop_instance_uid, detail)
VALUES (%(at)s, %(door)s, %(actor)s, %(address)s, %(action)s, %(outcome)s, %(patient_id)s, %(study_uid)s,
        %(series_uid)s, %(sop_instance_uid)s, %(detail)s);

-- name: of_study
-- Who did what with a study, newest first.
SELECT id, at, door, actor, address, action, outcome, patient_id, study_uid, series_uid, sop_instance_uid, detail
FROM audit WHERE study_uid = %(study_uid)s ORDER BY id DESC LIMIT %(limit)s;

-- name: of_patient
-- Who saw a patient, newest first.
SELECT id, at, door, actor, address, action, outcome, patient_id, study_uid, series_uid, sop_instance_uid, detail
FROM audit WHERE patient_id = %(patient_id)s ORDER BY id DESC LIMIT %(limit)s;
