DROP TABLE quarantined;
