-- Counts, without a walk over the nonces.
--
-- KEYS 1 outstanding  2 spent  3 holders  4 totals  5 index of brought nonces   ARGV 1 most issuers to name
--
-- Brought nonces whose time is over are trimmed from their index with the next claim.
local brought = redis.call('ZCARD', KEYS[5])
local totals = redis.call('HMGET', KEYS[4], 'expired', 'last_cleanup')
return {
  redis.call('ZCARD', KEYS[1]),
  redis.call('ZCARD', KEYS[2]) + math.max(0, brought - 1),
  tonumber(totals[1] or '0'),
  totals[2] or '',
  redis.call('ZCARD', KEYS[3]),
  redis.call('ZRANGE', KEYS[3], 0, ARGV[1] - 1, 'REV', 'WITHSCORES'),
}
