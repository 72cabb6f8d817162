-- name: held
-- Instances by their keys, as readers name them.
SELECT pk, study_uid, series_uid, sop_class_uid, sop_instance_uid, transfer_syntax_uid, number_of_frames, object_name, size,
       data_offset, sha256, data_sha256, series_number, instance_number
FROM held WHERE pk = ANY(%(pks)s);
