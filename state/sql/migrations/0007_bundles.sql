-- Estate bundles. At the hub: what it put in force, one after the other. At a site: what came from the hub, and what became of it.
CREATE TABLE bundles (
  number     INTEGER PRIMARY KEY CHECK (number >= 1),              -- counts up per hub; a later one replaces an earlier one
  estate     TEXT    NOT NULL CHECK (length(estate) = 32),         -- the hash; the document comes after its number
  adopted_by TEXT    NOT NULL,                                     -- at the hub
  adopted_at INTEGER NOT NULL,
  seal       BLOB    NOT NULL,                                     -- the hub's signature; none at the hub, which makes it anew
  state      TEXT    NOT NULL CHECK (state = 'issued' OR state = 'came' OR state = 'trial' OR state = 'good' OR state = 'refused'),
  reason     TEXT    NOT NULL DEFAULT '',                          -- why it is refused
  CHECK ((state = 'issued') = (seal = x'')),
  CHECK ((state = 'refused') = (reason <> ''))
) STRICT;

-- Which estates are waited for is asked at each exchange.
CREATE INDEX unapplied_by_estate ON unapplied (estate, peer_id);
