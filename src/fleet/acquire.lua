-- Takes the lock if it is free, and draws a fence above every earlier one.
--
-- KEYS 1 the lock  2 the last fence   ARGV 1 token of the holder  2 life (ms)  3 last fence in the ledger
--
-- The fence comes from the server's clock in milliseconds, or is one more than the highest known:
-- so it grows over restarts, flushes and failovers too, as long as clocks of servers that follow
-- each other differ by less than the time a lock is held.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return { 'held', '0' } end
local time = redis.call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
local known = math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[3]))
local fence = math.max(clock, known + 1)
-- Sent twice by a lost reply, the same holder draws a second fence: higher is always right.
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local text = string.format('%.0f', fence)
redis.call('SET', KEYS[2], text)
return { 'acquired', text }
