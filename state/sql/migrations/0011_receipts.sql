-- What shows a hub that it had acknowledged something: its own receipt for the last push, as it came; '' where it gave none.
ALTER TABLE peers ADD COLUMN receipt TEXT NOT NULL DEFAULT '';
