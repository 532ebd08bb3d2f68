-- Keeps the answer beside the spent nonce, for retries on any appliance.
--
-- KEYS 1 the nonce   ARGV 1 token of the spend  2 the answer as JSON
--
-- Acts on the in-progress spend with this token only, in the history it was made in: a record that
-- is gone, or in a history in which that spend may never have happened, is left as it is. There is
-- then no retry to answer. Doing it twice changes nothing.
--
-- allow-oom: the signature exists; forgetting it would help nobody's memory.
local run_id, replid = current_history()
local nonce = redis.call('HMGET', KEYS[1], 'run_id', 'replid', 'state', 'token')
if nonce[1] == run_id and nonce[2] == replid and nonce[3] == 'in_progress' and nonce[4] == ARGV[1] then
  redis.call('HSET', KEYS[1], 'state', 'settled', 'answer', ARGV[2])
  return 'done'
end
return 'not_yours'
