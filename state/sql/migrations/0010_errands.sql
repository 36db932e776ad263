-- What a person at the hub, or at the site itself, asked of an agent and what outlives a restart: to drain.

ALTER TABLE life ADD COLUMN draining_since INTEGER;
ALTER TABLE life ADD COLUMN draining_why TEXT NOT NULL DEFAULT '';
