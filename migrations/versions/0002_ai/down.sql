DROP TABLE ai_sidecar, ai_result, ai_job, ai_request, ai_study, ai_model;
DELETE FROM outbox WHERE topic = 'job';
DELETE FROM node_state WHERE key = 'ai_epoch';
