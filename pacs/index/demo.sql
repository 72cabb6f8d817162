-- name: mark_demo_study
-- Marks a study as demo once its slices are stored.
UPDATE study SET demo = true WHERE study_uid = %(study_uid)s;

-- name: unmark_demo_study
-- Somebody stored objects of their own into it: what stays is theirs.
UPDATE study SET demo = false WHERE study_uid = %(study_uid)s;

-- name: demo_studies
-- Marked studies with the number of objects that are ours (seeded, or results made from them) and those that are not.
SELECT study.study_uid,
       count(*) FILTER (WHERE instance.door IN ('demo', 'ai')) AS seeded,
       count(*) FILTER (WHERE instance.door NOT IN ('demo', 'ai')) AS foreign_objects
FROM study JOIN instance ON instance.study_pk = study.pk
WHERE study.demo
GROUP BY study.study_uid
ORDER BY study.study_uid;

-- name: demo_instances
-- The objects of a marked study that are ours.
SELECT study.study_uid, series.series_uid, instance.sop_instance_uid
FROM instance JOIN series ON series.pk = instance.series_pk JOIN study ON study.pk = instance.study_pk
WHERE study.study_uid = %(study_uid)s AND instance.door IN ('demo', 'ai')
ORDER BY instance.pk;
