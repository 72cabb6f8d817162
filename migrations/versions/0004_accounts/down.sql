DROP TABLE study_label;
DROP TABLE login_failure;
DROP TABLE api_token;
DROP TABLE session;
DROP TABLE account;
