-- Counts, without a walk over the nonces.
--
-- KEYS 1 outstanding  2 spent  3 holders  4 totals   ARGV 1 most issuers to name
local totals = redis.call('HMGET', KEYS[4], 'expired', 'last_cleanup')
return {
  redis.call('ZCARD', KEYS[1]),
  redis.call('ZCARD', KEYS[2]),
  tonumber(totals[1] or '0'),
  totals[2] or '',
  redis.call('ZCARD', KEYS[3]),
  redis.call('ZRANGE', KEYS[3], 0, ARGV[1] - 1, 'REV', 'WITHSCORES'),
}
