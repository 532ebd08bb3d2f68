-- Appliances hand each other the heads of their audit logs. Nothing here is believed: every note is
-- signed, and whoever reads one verifies it.
--
-- KEYS 1 heads  2 submissions  3 answers
-- ARGV 1 instance  2 origin  3 size of its head  4 its head's note, or ''
--      then triples: 'submit' witness request | 'answer' origin note
if ARGV[4] ~= '' then
  local known = redis.call('HGET', KEYS[1], ARGV[2])
  if not known or tonumber(ARGV[3]) > tonumber(string.match(known, '^(%d+)\n') or '0') then
    redis.call('HSET', KEYS[1], ARGV[2], ARGV[3] .. '\n' .. ARGV[4])
  end
end
for i = 5, #ARGV, 3 do
  if ARGV[i] == 'submit' then redis.call('HSET', KEYS[2], ARGV[i + 1] .. '\n' .. ARGV[2], ARGV[i + 2]) end
  if ARGV[i] == 'answer' then redis.call('HSET', KEYS[3], ARGV[i + 1] .. '\n' .. ARGV[1], ARGV[i + 2]) end
end
-- What others submit to this appliance is taken out; what they answer about its log stays.
local submitted, answered = {}, {}
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
  if string.sub(all[i], 1, #ARGV[1] + 1) == ARGV[1] .. '\n' then
    table.insert(submitted, all[i + 1])
    redis.call('HDEL', KEYS[2], all[i])
  end
end
all = redis.call('HGETALL', KEYS[3])
for i = 1, #all, 2 do
  if string.sub(all[i], 1, #ARGV[2] + 1) == ARGV[2] .. '\n' then
    table.insert(answered, { string.sub(all[i], #ARGV[2] + 2), all[i + 1] })
  end
end
local head = redis.call('HGET', KEYS[1], ARGV[2]) or ''
return { string.gsub(head, '^%d+\n', '', 1), submitted, answered }
