DROP TABLE forward_destination, forward_item, commitment_gap, commitment_item, commitment;
DELETE FROM node_state WHERE key = 'forward_cursor';
