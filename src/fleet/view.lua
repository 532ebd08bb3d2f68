-- What the fleet knows: the furthest reading, the revoked keys, and who reported lately.
--
-- KEYS 1 members  2 furthest  3 revoked keys
local time = redis.call('TIME')
local lately = {}
local members = redis.call('HGETALL', KEYS[1])
for i = 1, #members, 2 do
  local at, revocations = string.match(members[i + 1], '^(%d+) (%d+)$')
  if at and time[1] - at <= 5 then
    table.insert(lately, { members[i], tonumber(revocations) })
  end
end
local furthest = redis.call('HMGET', KEYS[2], 'records', 'head')
return { tonumber(furthest[1] or '0'), furthest[2] or '', redis.call('SMEMBERS', KEYS[3]), lately }
