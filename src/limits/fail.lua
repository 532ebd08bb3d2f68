-- Counts a failure against a subject; after too many of them nothing more for a while.
--
-- KEYS 1 the subject's buckets
-- ARGV 1 failures' field  2 interval  3 window  4 cool-down's field  5 length of the cool-down (µs)
-- Returns 1 when the cool-down has begun with this failure.
--
-- allow-oom: remembering a failure is worth more than its few bytes.
local now = now_in_microseconds()
local tat = math.max(tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0'), now) + tonumber(ARGV[2])
if tat + tonumber(ARGV[2]) - tonumber(ARGV[3]) <= now then
  keep(KEYS[1], ARGV[1], tat, now)
  return 0
end
-- This was the last one allowed. Counting begins anew when the cool-down has passed.
redis.call('HDEL', KEYS[1], ARGV[1])
keep(KEYS[1], ARGV[4], now + tonumber(ARGV[5]), now)
return 1
