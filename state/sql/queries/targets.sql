-- :name note
UPDATE targets
   SET breaker = CASE WHEN ?1 IS NULL THEN 'closed' ELSE 'open' END, retry_at = ?1, breaker_reason = ?2, failures = ?3,
       last_success_at = coalesce(?4, last_success_at)
 WHERE name = ?5;

-- :name close_breakers
UPDATE targets SET breaker = 'closed', retry_at = NULL, breaker_reason = '', failures = 0 WHERE breaker = 'open';
