-- Counts, without a walk over the nonces.
--
-- KEYS 1 outstanding  2 spent  3 issuers  4 totals
local totals = redis.call('HMGET', KEYS[4], 'expired', 'last_cleanup')
return {
  redis.call('ZCARD', KEYS[1]),
  redis.call('ZCARD', KEYS[2]),
  tonumber(totals[1] or '0'),
  totals[2] or '',
  redis.call('HGETALL', KEYS[3]),
}
