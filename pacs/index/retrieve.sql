-- name: locate_study
-- The instances of a study that default queries show.
SELECT i.pk, study_uid, series_uid, sop_class_uid, sop_instance_uid, transfer_syntax_uid, number_of_frames, object_name,
       size, data_offset, encode(sha256, 'hex'), encode(data_sha256, 'hex'), series_number, instance_number
FROM study s JOIN series r ON r.study_pk = s.pk JOIN instance i ON i.series_pk = r.pk
WHERE study_uid = %(study_uid)s AND NOT hidden;

-- name: locate_series
-- The instances of one series, whatever became of them.
SELECT i.pk, study_uid, series_uid, sop_class_uid, sop_instance_uid, transfer_syntax_uid, number_of_frames, object_name,
       size, data_offset, encode(sha256, 'hex'), encode(data_sha256, 'hex'), series_number, instance_number
FROM study s JOIN series r ON r.study_pk = s.pk JOIN instance i ON i.series_pk = r.pk
WHERE study_uid = %(study_uid)s AND series_uid = %(series_uid)s;

-- name: locate_instance
-- One instance.
SELECT i.pk, study_uid, series_uid, sop_class_uid, sop_instance_uid, transfer_syntax_uid, number_of_frames, object_name,
       size, data_offset, encode(sha256, 'hex'), encode(data_sha256, 'hex'), series_number, instance_number
FROM instance i JOIN series r ON r.pk = i.series_pk JOIN study s ON s.pk = i.study_pk
WHERE sop_instance_uid = %(sop_instance_uid)s AND study_uid = %(study_uid)s AND series_uid = %(series_uid)s;

-- name: metadata
-- What was derived of some instances.
SELECT instance_pk, metadata FROM instance_derived WHERE instance_pk = ANY(%(pks)s);

-- name: frames
-- The frame table of one instance.
SELECT frames FROM instance_derived WHERE instance_pk = %(pk)s;

-- name: current_object
-- Which object holds an instance now; none when it was deleted.
SELECT object_name FROM instance WHERE sop_instance_uid = %(sop_instance_uid)s;
