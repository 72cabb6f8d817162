DROP FUNCTION remove_instances, replace_object, store_objects, store_further, recount, prune, count_in, announce, add_instances,
    lock_studies, make_parents, merged, note_conflicts;
DROP TYPE further_instance;
DROP VIEW held;
DROP TABLE node_state, finding, audit, outbox, change_feed, refusal, patient_conflict, conflict, tombstone,
    instance_derived, instance, series, study, patient;
