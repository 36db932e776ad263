-- :name find
SELECT o.id
  FROM origins o JOIN estates e ON e.id = o.estate_id
 WHERE o.site = ? AND o.system = ? AND o.flow = ? AND o.contract = ? AND o.op = ? AND o.environment = ? AND e.hash = ?;

-- :name add
INSERT INTO origins (site, system, flow, contract, op, environment, estate_id)
SELECT ?, ?, ?, ?, ?, ?, e.id FROM estates e WHERE e.hash = ?
RETURNING id;

-- :name attributes
SELECT o.site, o.system, o.flow, o.contract, o.op, o.environment, e.hash
  FROM origins o JOIN estates e ON e.id = o.estate_id
 WHERE o.id = ?;
