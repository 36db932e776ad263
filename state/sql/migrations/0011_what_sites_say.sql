-- What shows a hub that it had acknowledged something: its own receipt for the last push, as it came; '' where it gave none.
ALTER TABLE peers ADD COLUMN receipt TEXT NOT NULL DEFAULT '';

-- Whose event it was: the same id of another site is another event. NULL: of a record, or let go before this was kept.
ALTER TABLE let_go ADD COLUMN origin_id INTEGER REFERENCES origins (id);

-- Of what its sender had lost and was given back: what lies in the gap was let go here as well, so it came back in part only.
ALTER TABLE gaps ADD COLUMN of_give_back INTEGER NOT NULL DEFAULT 0 CHECK (of_give_back IN (0, 1));

-- The highest local number of an event that was let go. Numbers have no gaps but those.
INSERT INTO counters (name, value)
SELECT 'let_go_upto', coalesce(max(ev.seq) - 1, 0)
  FROM events ev
 WHERE ev.seq > 1 AND NOT EXISTS (SELECT 1 FROM events before WHERE before.seq = ev.seq - 1);
