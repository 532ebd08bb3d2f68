-- Adds records to the fleet's list of blocks, and returns all of it.
--
-- KEYS 1 the list, a hash from id to record
-- ARGV 1 life of the list (ms)  then, in pairs: id, record as JSON ('' forgets it)
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
if #ARGV > 1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return redis.call('HVALS', KEYS[1])
