DROP VIEW unfinished_study;
DROP TABLE performed_gap, performed_study, performed_step, worklist_item;
