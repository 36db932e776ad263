-- What shows a hub that it had acknowledged something: its own receipt for the last push, as it came; '' where it gave none.
ALTER TABLE peers ADD COLUMN receipt TEXT NOT NULL DEFAULT '';

-- Whose event it was: the same id of another site is another event. NULL: of a record, or let go before this was kept.
ALTER TABLE let_go ADD COLUMN origin_id INTEGER REFERENCES origins (id);
