-- Forgets one batch of nonces whose window has ended; returns how many were unspent,
-- and spent.
--
-- KEYS 1 outstanding  2 spent  3 holders  4 totals
-- ARGV 1 now (seconds)  2 most nonces to forget  3 prefix of nonces  4 now, as it is reported
--
-- A spent nonce is forgotten only when its window has ended by the caller's clock, and forgotten
-- means unknown: a second use is then refused as not_found instead of expired.
current_history()
redis.call('HSET', KEYS[4], 'last_cleanup', ARGV[4])
return { forget_expired(KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[3], ARGV[1], tonumber(ARGV[2])) }
