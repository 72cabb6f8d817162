-- name: objects
-- Instances after a place in the index, with what their files should be.
SELECT pk, object_name, size, sop_instance_uid, extract(epoch FROM stored_at)::float8 AS stored_at
FROM instance WHERE pk > %(after)s ORDER BY pk LIMIT %(limit)s;

-- name: of_objects
-- The instances that these objects hold now.
SELECT pk, object_name, size, sop_instance_uid, sha256 FROM instance WHERE object_name = ANY(%(names)s) ORDER BY pk;

-- name: sample
-- So many instances by chance.
SELECT object_name FROM instance ORDER BY random() LIMIT %(limit)s;

-- name: unnamed
-- Of these files those that nothing in the index names.
SELECT name FROM unnest(%(names)s::text[]) AS name
WHERE NOT EXISTS (SELECT FROM instance WHERE object_name = name)
  AND NOT EXISTS (SELECT FROM tombstone WHERE object_name = name);

-- name: open_conflicts
-- Newcomers that wait for a decision.
SELECT id, object_name, sop_instance_uid FROM conflict WHERE state = 'open' ORDER BY id;

-- name: close_conflict
-- The newcomer is lost: what is stored stays.
UPDATE conflict SET state = 'kept', resolved_at = now() WHERE id = %(id)s AND state = 'open';

-- name: counters
-- Studies after a place in the index, and whether their counters say what is there. Words are compared as sets: their
-- order and repetition are of no meaning.
WITH page AS (SELECT * FROM study WHERE pk > %(after)s ORDER BY pk LIMIT %(limit)s)
SELECT pk, study_uid,
       series_count <> (SELECT count(*) FROM series WHERE study_pk = page.pk)
       OR instance_count <> (SELECT count(*) FROM instance WHERE study_pk = page.pk)
       OR EXISTS (SELECT FROM series WHERE study_pk = page.pk
                    AND instance_count <> (SELECT count(*) FROM instance WHERE series_pk = series.pk))
       OR ARRAY(SELECT DISTINCT word FROM unnest(string_to_array(modalities, '\')) AS word WHERE word <> '' ORDER BY word)
          <> ARRAY(SELECT DISTINCT word FROM series, unnest(string_to_array(modality, '\')) AS word
                   WHERE study_pk = page.pk AND word <> '' ORDER BY word)
       OR ARRAY(SELECT DISTINCT word FROM unnest(string_to_array(sop_classes, '\')) AS word WHERE word <> '' ORDER BY word)
          <> ARRAY(SELECT DISTINCT sop_class_uid FROM instance WHERE study_pk = page.pk AND sop_class_uid <> ''
                   ORDER BY sop_class_uid)
       AS wrong
FROM page ORDER BY pk;

-- name: empty
-- Parents without children; nobody can reach them.
SELECT 'series' AS level, series_uid AS uid, pk, study_pk FROM series
WHERE NOT EXISTS (SELECT FROM instance WHERE series_pk = series.pk)
UNION ALL
SELECT 'study', study_uid, pk, pk FROM study WHERE NOT EXISTS (SELECT FROM series WHERE study_pk = study.pk)
UNION ALL
SELECT 'patient', pk::text, pk, NULL FROM patient WHERE NOT EXISTS (SELECT FROM study WHERE patient_pk = patient.pk)
ORDER BY level, pk;

-- name: lock_patients_of
-- The order of locks: patients, then studies.
SELECT pk FROM patient WHERE pk IN (SELECT patient_pk FROM study WHERE study.pk = ANY(%(pks)s))
ORDER BY identity FOR UPDATE;

-- name: lock_studies
-- Nobody stores into them until the transaction ends.
SELECT pk FROM study WHERE pk = ANY(%(pks)s) ORDER BY study_uid FOR UPDATE;

-- name: keep_empty
-- Rows without children, kept as they are.
INSERT INTO quarantined (what, name, reason, content)
SELECT 'series', series_uid, 'empty-parents', jsonb_build_object('series', to_jsonb(series), 'study', to_jsonb(study))
FROM series JOIN study ON study.pk = study_pk
WHERE study_pk = ANY(%(pks)s) AND NOT EXISTS (SELECT FROM instance WHERE series_pk = series.pk)
UNION ALL
SELECT 'study', study_uid, 'empty-parents', jsonb_build_object('study', to_jsonb(study), 'patient', to_jsonb(patient))
FROM study JOIN patient ON patient.pk = patient_pk
WHERE study.pk = ANY(%(pks)s) AND NOT EXISTS (SELECT FROM instance WHERE instance.study_pk = study.pk);

-- name: prune
-- Out of the index.
SELECT prune(%(pks)s);

-- name: keep_empty_patients
-- Patients without a study, kept as they are.
WITH gone AS (DELETE FROM patient WHERE NOT EXISTS (SELECT FROM study WHERE patient_pk = patient.pk) RETURNING patient.*)
INSERT INTO quarantined (what, name, reason, content)
SELECT 'patient', pk::text, 'empty-parents', jsonb_build_object('patient', to_jsonb(gone)) FROM gone RETURNING pk;

-- name: recount
-- Count anew.
SELECT recount(%(pks)s);

-- name: misfiled
-- Instances whose series belongs to another study than they say.
SELECT i.pk, i.sop_instance_uid, i.study_pk AS wrong, r.study_pk AS right
FROM instance i JOIN series r ON r.pk = i.series_pk WHERE i.study_pk <> r.study_pk ORDER BY i.pk LIMIT 1000;

-- name: refile
-- To the study of their series.
UPDATE instance SET study_pk = series.study_pk FROM series
WHERE series.pk = series_pk AND instance.pk = ANY(%(pks)s) AND instance.study_pk <> series.study_pk;

-- name: quiet_for
-- Seconds since something was stored.
SELECT coalesce(extract(epoch FROM now() - max(stored_at)), 1e9)::float8 AS seconds FROM instance;

-- name: underived
-- Instances of which nothing is derived, stored some time ago.
SELECT pk, sop_instance_uid, object_name FROM instance
WHERE stored_at < now() - %(seconds)s * interval '1 second'
  AND NOT EXISTS (SELECT FROM instance_derived WHERE instance_pk = pk)
ORDER BY pk LIMIT 5000;

-- name: derived
-- What was derived, after a place in the index.
SELECT instance_pk AS pk, metadata, frames FROM instance_derived
WHERE instance_pk > %(after)s ORDER BY instance_pk LIMIT %(limit)s;

-- name: derived_sample
-- What was derived, so many by chance.
SELECT instance_pk AS pk, metadata, frames FROM instance_derived TABLESAMPLE SYSTEM (%(percent)s) LIMIT %(limit)s;

-- name: derived_rows
-- How many there are about.
SELECT greatest(reltuples, 0)::float8 AS rows FROM pg_class WHERE oid = 'instance_derived'::regclass;

-- name: uids
-- The UIDs of some instances.
SELECT sop_instance_uid FROM instance WHERE pk = ANY(%(pks)s) ORDER BY pk;

-- name: forget_derived
-- What was derived can be derived again.
DELETE FROM instance_derived WHERE instance_pk = ANY(%(pks)s);

-- name: keep_lost
-- The row of an instance whose object is lost, with those of its parents, kept as they are.
INSERT INTO quarantined (what, name, reason, place, content)
SELECT 'instance', i.sop_instance_uid, %(reason)s, %(place)s,
       jsonb_build_object('instance', to_jsonb(i), 'series', to_jsonb(r), 'study', to_jsonb(s))
FROM instance i JOIN series r ON r.pk = i.series_pk JOIN study s ON s.pk = i.study_pk
WHERE i.pk = %(pk)s AND i.object_name = %(name)s
RETURNING pk;

-- name: remove_lost
-- Out of the index, with all that this changes (functions.sql in migrations).
SELECT patient_id, study_uid, series_uid, sop_instance_uid FROM remove_instances(ARRAY[%(pk)s::bigint], 'lost');

-- name: moved
-- A file was moved to quarantine.
INSERT INTO quarantined (what, name, reason, place) VALUES (%(what)s, %(name)s, %(reason)s, %(place)s);

-- name: outbox
-- Events that should have been passed on long ago.
SELECT topic, count(*) AS rows, extract(epoch FROM now() - min(made_at))::float8 AS seconds
FROM outbox WHERE sent_at IS NULL AND made_at < now() - %(seconds)s * interval '1 second' GROUP BY topic ORDER BY topic;

-- name: stuck_jobs
-- Jobs in the hands of workers that are gone.
SELECT id, model, study_uid, state FROM ai_job
WHERE state IN ('RUNNING', 'STORING')
  AND coalesce(lease_until, '-infinity') < now() - %(seconds)s * interval '1 second' ORDER BY id;

-- name: missing_results
-- Results that jobs say they stored, which are not there and were not deleted either; those asked for anew left out.
SELECT j.id, j.study_uid, j.model, r.sop_instance_uid
FROM ai_result r JOIN ai_job j ON j.id = r.job_id
WHERE j.state = 'SUCCEEDED'
  AND EXISTS (SELECT FROM study WHERE study.study_uid = j.study_uid)
  AND NOT EXISTS (SELECT FROM instance WHERE instance.sop_instance_uid = r.sop_instance_uid)
  AND NOT EXISTS (SELECT FROM change_feed WHERE action = 'delete' AND change_feed.sop_instance_uid = r.sop_instance_uid
                    AND change_feed.at >= r.stored_at)
  AND NOT EXISTS (SELECT FROM ai_request q WHERE q.study_uid = j.study_uid AND q.model IN ('', j.model)
                    AND q.done_at IS NULL)
ORDER BY j.id, r.sop_instance_uid LIMIT 1000;

-- name: models
-- Packages that their sidecar does not let run.
SELECT name, version, path, message FROM ai_model WHERE state = 'quarantined' ORDER BY name, version;

-- name: retire_model
-- Its folder was moved away.
UPDATE ai_model SET state = 'retired', reason = 'folder_gone', message = 'Its folder is no longer there.'
WHERE path = %(path)s;

-- name: unsealed
-- Changes that should have got their number by now.
SELECT count(*) AS rows FROM change_feed WHERE seq IS NULL AND at < now() - %(seconds)s * interval '1 second';

-- name: feed_gaps
-- Numbers that nobody has.
SELECT coalesce(max(seq) - min(seq) + 1 - count(seq), 0) AS missing FROM change_feed;

-- name: audit_rows
-- How many there are about.
SELECT greatest(reltuples, 0)::float8 AS rows FROM pg_class WHERE oid = 'audit'::regclass;

-- name: findings
-- What the sweep, the scrub and readers wrote down.
SELECT kind, object_name, sop_instance_uid FROM finding WHERE cured_at IS NULL ORDER BY pk LIMIT 5000;

-- name: administrators
-- Accounts that may do everything and may come in.
SELECT count(*) AS rows FROM account WHERE 'admin' = ANY(roles) AND NOT disabled;

-- name: demo
-- Studies that were seeded.
SELECT study_uid FROM study WHERE demo ORDER BY pk;

-- name: future
-- Objects that were stored later than now.
SELECT count(*) AS rows, max(stored_at) AS latest FROM instance WHERE stored_at > now() + interval '5 minutes';

-- name: clock
-- The database's own clock.
SELECT extract(epoch FROM clock_timestamp())::float8 AS seconds;

-- name: backends
-- Connections of this database by who they are, and all there may be.
SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
       current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer AS most;

-- name: processes
-- Processes of a node at work on this database.
SELECT DISTINCT split_part(application_name, ' ', 2) AS process FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'filmroom %%';

-- name: clerk
-- Whether some clerk holds its lock.
SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = 0
                 AND objid = %(lock)s
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS there;

-- name: server
-- What the server promises for a connection that asks for nothing.
SELECT name, setting FROM pg_settings
WHERE name IN ('server_version', 'server_version_num', 'fsync', 'synchronous_commit', 'full_page_writes', 'autovacuum',
               'server_encoding', 'zero_damaged_pages', 'default_transaction_read_only', 'in_hot_standby');

-- name: things
-- Everything that the schema holds, by kind and name.
SELECT CASE relkind WHEN 'i' THEN 'index' WHEN 'v' THEN 'view' ELSE 'table' END AS kind, relname AS name FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'i', 'v')
UNION
SELECT 'function', proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
UNION
SELECT 'trigger', tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
WHERE relnamespace = current_schema()::regnamespace AND NOT tgisinternal;

-- name: functions
-- What the functions of the schema do.
SELECT proname AS name, prosrc AS body FROM pg_proc WHERE pronamespace = current_schema()::regnamespace;

-- name: invalid_indexes
-- Indexes that answer no query: their making was cut off.
SELECT relname AS name FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE NOT (indisvalid AND indisready) AND relnamespace = current_schema()::regnamespace
  AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index AS making WHERE making.index_relid = indexrelid)
ORDER BY relname;

-- name: trigrams
-- Whether `*text*` searches have their index, and whether they could.
SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') AS available,
       EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm') AS there,
       to_regclass('study_trigrams') IS NOT NULL AS indexed;

-- name: recall
-- A fact about the node.
SELECT value FROM node_state WHERE key = %(key)s;

-- name: remember
-- A fact about the node that nobody has written down yet.
INSERT INTO node_state (key, value) VALUES (%(key)s, %(value)s) ON CONFLICT (key) DO NOTHING;

-- name: proof
-- What was stored last, and what was stored first.
(SELECT object_name FROM instance ORDER BY pk DESC LIMIT %(limit)s)
UNION (SELECT object_name FROM instance ORDER BY pk LIMIT %(limit)s);
