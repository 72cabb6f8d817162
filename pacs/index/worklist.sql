-- name: add
-- A planned step; nothing where this step of this study is known.
INSERT INTO worklist_item (study_uid, step_id, patient_id, state, start_date, start_time, attributes)
VALUES (%(study_uid)s, %(step_id)s, %(patient_id)s, %(state)s, %(start_date)s, %(start_time)s, %(attributes)s)
ON CONFLICT (study_uid, step_id) DO NOTHING
RETURNING *;

-- name: replace
-- Another content of an item.
UPDATE worklist_item SET study_uid = %(study_uid)s, step_id = %(step_id)s, patient_id = %(patient_id)s,
    state = %(state)s, start_date = %(start_date)s, start_time = %(start_time)s, attributes = %(attributes)s,
    changed_at = now()
WHERE id = %(id)s
RETURNING *;

-- name: get
SELECT * FROM worklist_item WHERE id = %(id)s;

-- name: remove
DELETE FROM worklist_item WHERE id = %(id)s RETURNING *;

-- name: list
-- Items in the order of their numbers, of one state where it is given.
SELECT * FROM worklist_item
WHERE id > %(after)s AND (%(state)s::text IS NULL OR state = %(state)s)
ORDER BY id LIMIT %(limit)s;

-- name: planned
-- What a modality may be shown, by its time, from a place on: the candidates of a query.
SELECT id, start_date, start_time, attributes FROM worklist_item
WHERE state <> 'completed' AND start_date BETWEEN %(low)s AND %(high)s
  AND (start_date, start_time, id) > (%(date)s, %(time)s, %(id)s)
ORDER BY start_date, start_time, id LIMIT %(limit)s;

-- name: move
-- Planned steps follow the performed ones.
UPDATE worklist_item w SET state = %(state)s, changed_at = now(),
    attributes = jsonb_set(w.attributes, '{00400100,Value,0,00400020}', %(status)s)
FROM unnest(%(study_uids)s::text[], %(step_ids)s::text[]) AS performed (study_uid, step_id)
WHERE w.study_uid = performed.study_uid AND w.step_id = performed.step_id;

-- name: prune
-- Completed items that are a month old.
DELETE FROM worklist_item WHERE id IN (
    SELECT id FROM worklist_item WHERE state = 'completed' AND changed_at < now() - interval '30 days' LIMIT 1000);

-- name: taken
-- Another item of the same step.
SELECT id FROM worklist_item WHERE study_uid = %(study_uid)s AND step_id = %(step_id)s AND id <> %(id)s;
