-- name: of_study
-- The labels of a study; no row where there is no such study.
SELECT coalesce(array_agg(l.label ORDER BY l.label) FILTER (WHERE l.label IS NOT NULL), '{}') AS labels
FROM study s LEFT JOIN study_label l ON l.study_pk = s.pk
WHERE s.study_uid = %(study_uid)s
GROUP BY s.pk;

-- name: lock
-- The study whose labels are changed.
SELECT pk FROM study WHERE study_uid = %(study_uid)s FOR KEY SHARE;

-- name: clear
-- No label but these.
DELETE FROM study_label WHERE study_pk = %(pk)s AND label <> ALL(%(labels)s);

-- name: put
-- These labels.
INSERT INTO study_label (study_pk, label) SELECT %(pk)s, unnest(%(labels)s::text[]) ON CONFLICT DO NOTHING;
