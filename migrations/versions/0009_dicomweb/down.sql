DROP TABLE indexed_instance;
DROP TABLE indexed_value;
DROP FUNCTION shifted_clock(text, text, integer);
DROP FUNCTION shifted_day(text, text, integer);
DROP FUNCTION shifted(text, text, integer);
DROP FUNCTION offset_minutes(text);
