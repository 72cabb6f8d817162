-- name: locate_study
-- The instances of a study that default queries show.
SELECT pk, study_uid, series_uid, sop_class_uid, sop_instance_uid, transfer_syntax_uid, number_of_frames, object_name, size,
       data_offset, sha256, data_sha256, series_number, instance_number
FROM held WHERE study_uid = %(study_uid)s AND NOT hidden;

-- name: locate_series
-- The instances of one series, whatever became of them.
SELECT pk, study_uid, series_uid, sop_class_uid, sop_instance_uid, transfer_syntax_uid, number_of_frames, object_name, size,
       data_offset, sha256, data_sha256, series_number, instance_number
FROM held WHERE study_uid = %(study_uid)s AND series_uid = %(series_uid)s;

-- name: locate_instance
-- One instance.
SELECT pk, study_uid, series_uid, sop_class_uid, sop_instance_uid, transfer_syntax_uid, number_of_frames, object_name, size,
       data_offset, sha256, data_sha256, series_number, instance_number
FROM held WHERE sop_instance_uid = %(sop_instance_uid)s AND study_uid = %(study_uid)s AND series_uid = %(series_uid)s;

-- name: digest_study
-- What changes when the instances of a study that default queries show change; null when there are none.
SELECT encode(sha256(string_agg(pk || ' ' || sha256, ',' ORDER BY pk)::bytea), 'hex')
FROM held WHERE study_uid = %(study_uid)s AND NOT hidden;

-- name: digest_series
-- What changes when the instances of one series, whatever became of them change; null when there are none.
SELECT encode(sha256(string_agg(pk || ' ' || sha256, ',' ORDER BY pk)::bytea), 'hex')
FROM held WHERE study_uid = %(study_uid)s AND series_uid = %(series_uid)s;

-- name: digest_instance
-- What changes when one instance changes; null when there is none.
SELECT encode(sha256(string_agg(pk || ' ' || sha256, ',' ORDER BY pk)::bytea), 'hex')
FROM held WHERE sop_instance_uid = %(sop_instance_uid)s AND study_uid = %(study_uid)s AND series_uid = %(series_uid)s;

-- name: order_study
-- What the instances of a study that default queries show are sorted by.
SELECT pk, series_number, series_uid, instance_number, sop_instance_uid
FROM held WHERE study_uid = %(study_uid)s AND NOT hidden;

-- name: order_series
-- What the instances of one series, whatever became of them are sorted by.
SELECT pk, series_number, series_uid, instance_number, sop_instance_uid
FROM held WHERE study_uid = %(study_uid)s AND series_uid = %(series_uid)s;

-- name: order_instance
-- What one instance is sorted by.
SELECT pk, series_number, series_uid, instance_number, sop_instance_uid
FROM held WHERE sop_instance_uid = %(sop_instance_uid)s AND study_uid = %(study_uid)s AND series_uid = %(series_uid)s;

-- name: by_pk
-- Some instances.
SELECT pk, study_uid, series_uid, sop_class_uid, sop_instance_uid, transfer_syntax_uid, number_of_frames, object_name, size,
       data_offset, sha256, data_sha256, series_number, instance_number
FROM held WHERE pk = ANY(%(pks)s);

-- name: metadata
-- What was derived of some instances.
SELECT instance_pk, metadata FROM instance_derived WHERE instance_pk = ANY(%(pks)s);

-- name: frames
-- The frame table of one instance.
SELECT frames FROM instance_derived WHERE instance_pk = %(pk)s;

-- name: current_object
-- Which object holds an instance now; none when it was deleted.
SELECT object_name FROM instance WHERE sop_instance_uid = %(sop_instance_uid)s;
