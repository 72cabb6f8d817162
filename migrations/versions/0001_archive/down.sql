DROP TABLE node_state, finding, audit, outbox, change_feed, refusal, patient_conflict, conflict, tombstone,
    instance_derived, instance, series, study, patient;
