-- Writes something, so that WAIT after it tells how many replicas follow this server now. Plants the
-- canary where there is none.
--
-- KEYS 1 index of brought nonces  2 the barrier   ARGV 1 a random text
--      2 life of the index (ms): without the index nothing is claimed, so it may run out at any time
-- Returns the incarnation, how many replicas are connected, and the server's clock in milliseconds.
current_history()
local last = redis.call('ZRANGE', KEYS[1], -1, -1)[1] or ''
if string.sub(last, 1, 7) ~= 'canary ' then
  redis.call('ZADD', KEYS[1], '+inf', 'canary ' .. ARGV[1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local replicas = info_field(redis.call('INFO', 'replication'), 'connected_slaves')
return { incarnation(KEYS[1]), tonumber(replicas or '0'), clock_milliseconds() }
