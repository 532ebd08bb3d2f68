-- Buckets that requests are charged to, by the generic cell rate algorithm: a bucket is one number,
-- the theoretical arrival time (TAT) of the next request if all came evenly. A request at `now` is
-- taken while TAT, moved on by one interval, lies at most one window (burst times interval) ahead.
--
-- Times are microseconds of this server's clock, which all appliances share; below 2^53 they are
-- exact. A bucket that is full again is forgotten (PEXPIRE), so what is remembered is bounded by
-- what was taken within one window.
--
-- charge(n, first) charges the last n KEYS, one each; from ARGV[first] on stand three values for
-- each: field, interval, window. Those before the first refusal stay charged: a request that asks
-- too much of a later bucket was still a request. Returns nothing, or the number of the charge that
-- was refused and the microseconds after which it would be taken.
--
-- An interval of zero takes nothing: it asks whether a time set by someone else has passed.
local function now_in_microseconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function keep(key, field, until_then, now)
  redis.call('HSET', key, field, string.format('%.0f', until_then))
  local life = math.ceil((until_then - now) / 1000)
  if life > redis.call('PTTL', key) then
    redis.call('PEXPIRE', key, life)
  end
end

local function charge(n, first)
  if n == 0 then return end
  local now = now_in_microseconds()
  for i = 1, n do
    local key = KEYS[#KEYS - n + i]
    local at = first + 3 * (i - 1)
    local field, interval, window = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local tat = math.max(tonumber(redis.call('HGET', key, field) or '0'), now) + interval
    if tat - window > now then
      return i, tat - window - now
    end
    if interval > 0 then
      keep(key, field, tat, now)
    end
  end
end
