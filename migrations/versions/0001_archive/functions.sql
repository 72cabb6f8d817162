-- What must happen in one transaction and one round trip. Locks are always taken patient, study, series, instance, and
-- sorted within each, so that batches of several processes never wait for one another in a circle. A parent that a
-- delete took away meanwhile raises a serialization failure: the caller tries again and makes it anew.
-- PL/pgSQL throughout: it keeps its plans, where a function in SQL is planned at each call (12 ms a store against 1).

-- A list joined by backslashes with more words in it, sorted, each once, none empty.
CREATE FUNCTION merged(list text, more text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN more <@ string_to_array(list, '\') THEN list ELSE coalesce((
        SELECT string_agg(word, '\' ORDER BY word COLLATE "C")
        FROM (SELECT unnest(string_to_array(list, '\')) UNION SELECT unnest(more)) AS words (word)
        WHERE word <> ''), '') END
$$;

-- The patients, studies and series of a batch that are not there yet; the primary keys of the series made.
CREATE FUNCTION make_parents(items jsonb[]) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    new_patients bigint[];
    new_series bigint[];
BEGIN
    WITH made AS (
        INSERT INTO patient (identity, patient_id, issuer_of_patient_id, patient_name, patient_birth_date, patient_sex,
                             attrs)
        SELECT DISTINCT ON (identity) item ->> 'identity' AS identity, p.patient_id, p.issuer_of_patient_id,
               p.patient_name, p.patient_birth_date, p.patient_sex, p.attrs
        FROM unnest(items) WITH ORDINALITY AS i (item, place),
             jsonb_populate_record(NULL::patient, item -> 'patient') AS p
        WHERE NOT EXISTS (SELECT FROM study WHERE study_uid = item -> 'study' ->> 'study_uid')
          AND NOT EXISTS (SELECT FROM patient AS known WHERE known.identity = item ->> 'identity')
        ORDER BY identity, place
        ON CONFLICT DO NOTHING
        RETURNING pk)
    SELECT array_agg(pk) INTO new_patients FROM made;

    INSERT INTO study (patient_pk, study_uid, patient_id, issuer_of_patient_id, patient_name, patient_birth_date,
                       patient_sex, study_date, study_time, accession_number, study_id, referring_physician_name,
                       study_description, institution_name, reading_physicians_name, attrs)
    SELECT DISTINCT ON (s.study_uid) known.pk, s.study_uid, p.patient_id, p.issuer_of_patient_id, p.patient_name,
           p.patient_birth_date, p.patient_sex, s.study_date, s.study_time, s.accession_number, s.study_id,
           s.referring_physician_name, s.study_description, s.institution_name, s.reading_physicians_name,
           p.attrs || s.attrs
    FROM unnest(items) WITH ORDINALITY AS i (item, place)
    JOIN patient AS known ON known.identity = item ->> 'identity',
         jsonb_populate_record(NULL::patient, item -> 'patient') AS p,
         jsonb_populate_record(NULL::study, item -> 'study') AS s
    WHERE NOT EXISTS (SELECT FROM study AS old WHERE old.study_uid = s.study_uid)
    ORDER BY s.study_uid, place
    ON CONFLICT DO NOTHING;

    PERFORM lock_studies(items);

    WITH made AS (
        INSERT INTO series (study_pk, series_uid, modality, series_number, series_description, series_date,
                            series_time, body_part_examined, protocol_name, operators_name, performing_physician_name,
                            performed_procedure_step_start_date, performed_procedure_step_start_time, attrs)
        SELECT DISTINCT ON (study.pk, r.series_uid) study.pk, r.series_uid, r.modality, r.series_number,
               r.series_description, r.series_date, r.series_time, r.body_part_examined, r.protocol_name,
               r.operators_name, r.performing_physician_name, r.performed_procedure_step_start_date, r.performed_procedure_step_start_time, r.attrs
        FROM unnest(items) WITH ORDINALITY AS i (item, place)
        JOIN study ON study.study_uid = item -> 'study' ->> 'study_uid',
             jsonb_populate_record(NULL::series, item -> 'series') AS r
        ORDER BY study.pk, r.series_uid, place
        ON CONFLICT DO NOTHING
        RETURNING pk)
    SELECT array_agg(pk) INTO new_series FROM made;

    -- another process made the study first, under another patient
    DELETE FROM patient WHERE pk = ANY(new_patients) AND NOT EXISTS (SELECT FROM study WHERE patient_pk = patient.pk);
    RETURN new_series;
END $$;

-- Hold the studies of a batch until its end: their counters will change.
CREATE FUNCTION lock_studies(items jsonb[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    wanted text[] := ARRAY(SELECT DISTINCT item -> 'study' ->> 'study_uid' FROM unnest(items) AS item);
BEGIN
    IF (SELECT count(*)
        FROM (SELECT FROM study WHERE study_uid = ANY(wanted) ORDER BY study_uid FOR NO KEY UPDATE) AS locked)
       < cardinality(wanted) THEN
        RAISE EXCEPTION 'a study of the batch has just been deleted' USING ERRCODE = 'serialization_failure';
    END IF;
END $$;

-- The instances of a batch whose UID nobody has; their primary keys.
CREATE FUNCTION add_instances(items jsonb[], new_version integer) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    new_instances bigint[];
BEGIN
    WITH made AS (
        INSERT INTO instance (series_pk, study_pk, sop_instance_uid, sop_class_uid, transfer_syntax_uid,
                              instance_number, content_date, content_time, number_of_frames, attrs, object_name, size,
                              data_offset, sha256, data_sha256, original, version, door, peer)
        SELECT series.pk, study.pk, n.sop_instance_uid, n.sop_class_uid, n.transfer_syntax_uid, n.instance_number,
               n.content_date, n.content_time, n.number_of_frames, n.attrs, n.object_name, n.size, n.data_offset,
               n.sha256, n.data_sha256, n.original, new_version, n.door, n.peer
        FROM unnest(items) WITH ORDINALITY AS i (item, place)
        JOIN study ON study.study_uid = item -> 'study' ->> 'study_uid'
        JOIN series ON series.study_pk = study.pk AND series.series_uid = item -> 'series' ->> 'series_uid',
             jsonb_populate_record(NULL::instance, item -> 'instance') AS n
        ORDER BY n.sop_instance_uid, place
        ON CONFLICT (sop_instance_uid) DO NOTHING
        RETURNING pk)
    SELECT coalesce(array_agg(pk), '{}') INTO new_instances FROM made;
    RETURN new_instances;
END $$;

-- What must be remembered of new instances: the change feed, the audit trail, and for the AI what originals arrived.
CREATE FUNCTION announce(items jsonb[], pks bigint[], done text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    WITH fresh AS (
        SELECT instance.pk, study_uid, series_uid, instance.sop_instance_uid, original, change_seq, item
        FROM unnest(items) AS item
        JOIN instance ON instance.sop_instance_uid = item -> 'instance' ->> 'sop_instance_uid'
                     AND instance.object_name = item -> 'instance' ->> 'object_name'
        JOIN series ON series.pk = series_pk JOIN study ON study.pk = instance.study_pk
        WHERE instance.pk = ANY(pks)
    ), feed AS (
        INSERT INTO change_feed (action, study_uid, series_uid, sop_instance_uid)
        SELECT done, study_uid, series_uid, sop_instance_uid FROM fresh ORDER BY pk
    ), trail AS (
        INSERT INTO audit (door, actor, address, action, outcome, patient_id, study_uid, series_uid, sop_instance_uid)
        SELECT item -> 'instance' ->> 'door', item -> 'instance' ->> 'peer', item -> 'instance' ->> 'address', 'store',
               'ok', item -> 'patient' ->> 'patient_id', study_uid, series_uid, sop_instance_uid FROM fresh ORDER BY pk
    )
    INSERT INTO outbox (topic, payload)
    SELECT DISTINCT 'stored', jsonb_build_object('study_uid', study_uid, 'series_uid', series_uid,
                                                 'change_seq', change_seq)
    FROM fresh WHERE original;
END $$;

-- One Patient ID under several names, or one study under several patients: stored all the same, shown to people.
-- Looked for with the first object of a series: its others come from the same machine.
CREATE FUNCTION note_conflicts(items jsonb[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO patient_conflict (patient_pk, study_uid, keyword)
    SELECT DISTINCT patient.pk, study.study_uid, keyword
    FROM unnest(items) AS item
    JOIN study ON study.study_uid = item -> 'study' ->> 'study_uid'
    JOIN patient ON patient.pk = study.patient_pk,
    LATERAL (VALUES ('PatientID', patient.identity, item ->> 'identity'),
                    ('PatientName', patient.patient_name, item -> 'patient' ->> 'patient_name'),
                    ('PatientBirthDate', patient.patient_birth_date, item -> 'patient' ->> 'patient_birth_date'),
                    ('PatientSex', patient.patient_sex, item -> 'patient' ->> 'patient_sex')) AS c (keyword, ours, theirs)
    WHERE ours <> theirs
    ON CONFLICT DO NOTHING;
END $$;

-- Add new instances to the counters of their series and studies.
CREATE FUNCTION count_in(pks bigint[], new_series bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    WITH fresh AS (
        SELECT instance.study_pk, series_pk, modality, sop_class_uid, original
        FROM instance JOIN series ON series.pk = series_pk WHERE instance.pk = ANY(pks)
    ), counted AS (
        UPDATE series SET instance_count = instance_count + n, changed_at = now()
        FROM (SELECT series_pk, count(*) AS n FROM fresh GROUP BY series_pk) AS added
        WHERE series.pk = series_pk
    )
    UPDATE study SET
        instance_count = instance_count + n,
        series_count = series_count + series_added,
        modalities = merged(modalities, modalities_added),
        sop_classes = merged(sop_classes, classes),
        change_seq = change_seq + originals,
        changed_at = CASE WHEN originals > 0 THEN now() ELSE changed_at END
    FROM (SELECT study_pk, count(*) AS n, count(*) FILTER (WHERE original) AS originals,
                 count(DISTINCT series_pk) FILTER (WHERE series_pk = ANY(new_series)) AS series_added,
                 coalesce(array_agg(DISTINCT modality) FILTER (WHERE modality <> ''), '{}') AS modalities_added,
                 array_agg(DISTINCT sop_class_uid) AS classes
          FROM fresh GROUP BY study_pk) AS added
    WHERE study.pk = added.study_pk;
END $$;

-- Parents that lost their last child, or never got one. Their patients and studies are locked by the caller.
CREATE FUNCTION prune(study_pks bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    patients bigint[] := ARRAY(SELECT DISTINCT patient_pk FROM study WHERE pk = ANY(study_pks));
BEGIN
    DELETE FROM series WHERE study_pk = ANY(study_pks) AND NOT EXISTS (SELECT FROM instance WHERE series_pk = series.pk);
    DELETE FROM study WHERE pk = ANY(study_pks) AND NOT EXISTS (SELECT FROM series WHERE study_pk = study.pk);
    DELETE FROM patient WHERE pk = ANY(patients) AND NOT EXISTS (SELECT FROM study WHERE patient_pk = patient.pk);
END $$;

-- Counters, modalities and classes of studies and their series, counted anew where they are wrong; the UIDs of those.
CREATE FUNCTION recount(study_pks bigint[]) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    WITH counted AS (
        SELECT series.pk, count(instance.pk)::integer AS n
        FROM series LEFT JOIN instance ON series_pk = series.pk
        WHERE series.study_pk = ANY(study_pks) GROUP BY series.pk
    )
    UPDATE series SET instance_count = n FROM counted
    WHERE series.pk = counted.pk AND instance_count <> n
    RETURNING series_uid::text;

    RETURN QUERY
    WITH counted AS (
        SELECT study.pk,
               (SELECT count(*)::integer FROM series WHERE study_pk = study.pk) AS series_n,
               (SELECT count(*)::integer FROM instance WHERE study_pk = study.pk) AS instance_n,
               merged('', ARRAY(SELECT modality FROM series WHERE study_pk = study.pk)) AS all_modalities,
               merged('', ARRAY(SELECT DISTINCT sop_class_uid FROM instance WHERE study_pk = study.pk)) AS all_classes
        FROM study WHERE pk = ANY(study_pks)
    )
    UPDATE study SET series_count = series_n, instance_count = instance_n, modalities = all_modalities,
                     sop_classes = all_classes
    FROM counted
    WHERE study.pk = counted.pk
      AND (series_count, instance_count, modalities, sop_classes) <> (series_n, instance_n, all_modalities, all_classes)
    RETURNING study_uid::text;
END $$;

-- Store a batch: one JSON object a line, as pacs/index/write.py makes them. One row for each, in order: `stored`;
-- `known` when the same data set is there, with the object that holds it; `differs` when another is.
CREATE FUNCTION store_objects(lines text)
RETURNS TABLE (outcome text, known_object text, known_size bigint, known_seconds double precision)
LANGUAGE plpgsql AS $$
DECLARE
    items jsonb[] := ARRAY(SELECT line::jsonb FROM unnest(string_to_array(lines, E'\n')) WITH ORDINALITY AS l (line, n)
                           ORDER BY n);
    new_series bigint[];
    new_instances bigint[];
BEGIN
    IF EXISTS (SELECT FROM unnest(items) AS item WHERE NOT EXISTS (
                   SELECT FROM study JOIN series ON series.study_pk = study.pk
                   WHERE study_uid = item -> 'study' ->> 'study_uid'
                     AND series_uid = item -> 'series' ->> 'series_uid')) THEN
        new_series := make_parents(items);
    ELSE
        PERFORM lock_studies(items);
    END IF;
    new_instances := add_instances(items, 1);
    PERFORM count_in(new_instances, new_series);
    PERFORM announce(items, new_instances, 'create');
    IF new_series IS NOT NULL THEN
        PERFORM note_conflicts(items);
    END IF;
    IF new_series IS NOT NULL AND cardinality(new_instances) < cardinality(items) THEN
        PERFORM prune(ARRAY(SELECT study_pk FROM series WHERE pk = ANY(new_series)));
    END IF;
    RETURN QUERY
    SELECT CASE WHEN kept.object_name = item -> 'instance' ->> 'object_name' THEN 'stored'
                WHEN kept.data_sha256 = (item -> 'instance' ->> 'data_sha256')::bytea THEN 'known'
                ELSE 'differs' END,
           kept.object_name::text, kept.size, extract(epoch FROM now() - kept.stored_at)::double precision
    FROM unnest(items) WITH ORDINALITY AS i (item, place)
    LEFT JOIN instance AS kept ON kept.sop_instance_uid = item -> 'instance' ->> 'sop_instance_uid'
    ORDER BY place;
END $$;

-- An object of a series that is in the index, as pacs/index/write.py makes it.
CREATE TYPE further_instance AS (
    study_uid text, series_uid text, patient_id text, door text, peer text, address text, sop_instance_uid text,
    sop_class_uid text, transfer_syntax_uid text, instance_number text, content_date text, content_time text,
    number_of_frames integer, attrs jsonb, object_name text, size bigint, data_offset integer, sha256 bytea,
    data_sha256 bytea, original boolean);

-- Store a batch of such, a JSON array sorted by study, series and instance; rows as `store_objects` gives them. Nearly
-- all objects come this way, most of them alone, so it is plain statements in a loop: they start in half the time of
-- those that take any number of objects at once. Raises no_data_found when a series is not there.
CREATE FUNCTION store_further(lines text)
RETURNS TABLE (outcome text, known_object text, known_size bigint, known_seconds double precision)
LANGUAGE plpgsql AS $$
DECLARE
    items further_instance[] := ARRAY(SELECT i FROM json_populate_recordset(NULL::further_instance, lines::json) AS i);
    item further_instance;
    following further_instance;
    study_key bigint;
    series_key bigint;
    made bigint;
    added integer := 0;
    originals integer := 0;
    classes text[] := '{}';
    seq bigint;
BEGIN
    FOR n IN 1 .. cardinality(items) LOOP
        item := items[n];
        following := items[n + 1];
        IF series_key IS NULL THEN
            SELECT study.pk, series.pk INTO study_key, series_key
            FROM study JOIN series ON series.study_pk = study.pk
            WHERE study_uid = item.study_uid AND series_uid = item.series_uid FOR NO KEY UPDATE OF study;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'a series of the batch is not there' USING ERRCODE = 'no_data_found';
            END IF;
        END IF;

        INSERT INTO instance (series_pk, study_pk, sop_instance_uid, sop_class_uid, transfer_syntax_uid,
                              instance_number, content_date, content_time, number_of_frames, attrs, object_name, size,
                              data_offset, sha256, data_sha256, original, version, door, peer)
        VALUES (series_key, study_key, item.sop_instance_uid, item.sop_class_uid, item.transfer_syntax_uid,
                item.instance_number, item.content_date, item.content_time, item.number_of_frames, item.attrs,
                item.object_name, item.size, item.data_offset, item.sha256, item.data_sha256, item.original, 1,
                item.door, item.peer)
        ON CONFLICT (sop_instance_uid) DO NOTHING
        RETURNING pk INTO made;
        IF made IS NULL THEN
            SELECT CASE WHEN data_sha256 = item.data_sha256 THEN 'known' ELSE 'differs' END, object_name, size,
                   extract(epoch FROM now() - stored_at)
            INTO outcome, known_object, known_size, known_seconds
            FROM instance WHERE sop_instance_uid = item.sop_instance_uid;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'an object of the batch has just been deleted' USING ERRCODE = 'serialization_failure';
            END IF;
        ELSE
            INSERT INTO change_feed (action, study_uid, series_uid, sop_instance_uid)
            VALUES ('create', item.study_uid, item.series_uid, item.sop_instance_uid);
            INSERT INTO audit (door, actor, address, action, outcome, patient_id, study_uid, series_uid,
                               sop_instance_uid)
            VALUES (item.door, item.peer, item.address, 'store', 'ok', item.patient_id, item.study_uid,
                    item.series_uid, item.sop_instance_uid);
            added := added + 1;
            originals := originals + item.original::integer;
            IF item.sop_class_uid <> ALL(classes) THEN
                classes := classes || item.sop_class_uid;
            END IF;
            outcome := 'stored';
            known_object := item.object_name;
            known_size := item.size;
            known_seconds := 0;
        END IF;
        RETURN NEXT;

        IF (item.study_uid, item.series_uid) IS DISTINCT FROM (following.study_uid, following.series_uid) THEN
            IF added > 0 THEN
                UPDATE series SET instance_count = instance_count + added, changed_at = now() WHERE pk = series_key;
                UPDATE study SET
                    instance_count = instance_count + added,
                    sop_classes = CASE WHEN classes <@ string_to_array(sop_classes, '\') THEN sop_classes
                                       ELSE merged(sop_classes, classes) END,
                    change_seq = change_seq + originals,
                    changed_at = CASE WHEN originals > 0 THEN now() ELSE changed_at END
                WHERE pk = study_key RETURNING change_seq INTO seq;
            END IF;
            IF originals > 0 THEN
                INSERT INTO outbox (topic, payload)
                VALUES ('stored', jsonb_build_object('study_uid', item.study_uid, 'series_uid', item.series_uid,
                                                     'change_seq', seq));
            END IF;
            series_key := NULL;
            added := 0;
            originals := 0;
            classes := '{}';
        END IF;
    END LOOP;
END $$;

-- Put an object, whose file is durable by now, in the place of the one that has its UID. `known`: the data sets are the
-- same and the newcomer's file takes the old one's place. `replaced`: it is the new version. `differs`: the UID belongs
-- to another study, or new versions are not wanted or forbidden by a legal hold. `gone`: nobody has the UID any more.
CREATE FUNCTION replace_object(line text, wanted boolean) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    item jsonb := line::jsonb;
    n instance := jsonb_populate_record(NULL::instance, item -> 'instance');
    old record;
    new_series bigint[];
    made bigint[];
BEGIN
    new_series := make_parents(ARRAY[item]);
    SELECT instance.*, study_uid, series_uid, legal_hold INTO old
    FROM instance JOIN series ON series.pk = series_pk JOIN study ON study.pk = instance.study_pk
    WHERE instance.sop_instance_uid = n.sop_instance_uid FOR UPDATE OF instance;
    IF NOT FOUND THEN
        PERFORM prune(ARRAY(SELECT pk FROM study WHERE study_uid = item -> 'study' ->> 'study_uid'));
        RETURN 'gone';
    END IF;
    IF old.data_sha256 <> n.data_sha256
       AND (NOT wanted OR old.legal_hold OR old.study_uid <> item -> 'study' ->> 'study_uid') THEN
        PERFORM prune(ARRAY(SELECT pk FROM study WHERE study_uid = item -> 'study' ->> 'study_uid'));
        RETURN 'differs';
    END IF;
    INSERT INTO tombstone (object_name, study_uid, series_uid, sop_instance_uid, cause)
    VALUES (old.object_name, old.study_uid, old.series_uid, old.sop_instance_uid, 'replaced');
    IF old.data_sha256 = n.data_sha256 THEN
        UPDATE instance SET object_name = n.object_name, size = n.size, data_offset = n.data_offset,
                            sha256 = n.sha256, checked_at = now() WHERE pk = old.pk;
        DELETE FROM instance_derived WHERE instance_pk = old.pk;
        UPDATE finding SET cured_at = now() WHERE object_name = old.object_name AND cured_at IS NULL;
        RETURN 'known';
    END IF;
    DELETE FROM instance WHERE pk = old.pk;
    made := add_instances(ARRAY[item], old.version + 1);
    PERFORM count_in(made, new_series);
    PERFORM prune(ARRAY[old.study_pk]);
    PERFORM recount(ARRAY[old.study_pk]);
    PERFORM announce(ARRAY[item], made, 'replace');
    RETURN 'replaced';
END $$;

-- Take instances out of the index: tombstones for their files, no empty parents, exact counters, the change feed.
-- Returns the names of what was taken out.
CREATE FUNCTION remove_instances(pks bigint[], why text)
RETURNS TABLE (patient_id text, study_uid text, series_uid text, sop_instance_uid text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    study_pks bigint[] := ARRAY(SELECT DISTINCT study_pk FROM instance WHERE pk = ANY(pks));
BEGIN
    PERFORM FROM patient WHERE pk IN (SELECT patient_pk FROM study WHERE study.pk = ANY(study_pks))
    ORDER BY identity FOR UPDATE;
    PERFORM FROM study WHERE pk = ANY(study_pks) ORDER BY study_uid FOR UPDATE;
    RETURN QUERY
    WITH gone AS (
        DELETE FROM instance USING series, study
        WHERE instance.pk = ANY(pks) AND series.pk = series_pk AND study.pk = instance.study_pk
        RETURNING instance.pk, object_name, study.patient_id, study_uid, series_uid, sop_instance_uid
    ), graves AS (
        INSERT INTO tombstone (object_name, study_uid, series_uid, sop_instance_uid, cause)
        SELECT object_name, study_uid, series_uid, sop_instance_uid, why FROM gone ORDER BY pk
    ), feed AS (
        INSERT INTO change_feed (action, study_uid, series_uid, sop_instance_uid)
        SELECT 'delete', study_uid, series_uid, sop_instance_uid FROM gone ORDER BY pk
    )
    SELECT gone.patient_id::text, gone.study_uid::text, gone.series_uid::text, gone.sop_instance_uid::text FROM gone;
    PERFORM prune(study_pks);
    PERFORM recount(study_pks);
END $$;
