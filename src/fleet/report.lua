-- One appliance tells how far it has read; the furthest of all is kept.
--
-- KEYS 1 members  2 furthest  3 revoked keys
-- ARGV 1 instance  2 records  3 head  4 'further' or 'anew'  5... sequences of revoked keys
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], time[1] .. ' ' .. (#ARGV - 4))
redis.call('PEXPIRE', KEYS[1], 60000)
-- 'anew': an operator has accepted a ledger that does not continue the one before.
if ARGV[4] == 'anew' or tonumber(ARGV[2]) > tonumber(redis.call('HGET', KEYS[2], 'records') or '0') then
  redis.call('HSET', KEYS[2], 'records', ARGV[2], 'head', ARGV[3])
end
for i = 5, #ARGV do redis.call('SADD', KEYS[3], ARGV[i]) end
return 'done'
