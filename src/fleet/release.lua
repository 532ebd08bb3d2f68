-- Gives the lock back, if it is still the holder's.
--
-- KEYS 1 the lock   ARGV 1 token of the holder
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 'done'
