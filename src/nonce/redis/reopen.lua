-- Lets the same client try the same content again, after a spend that released nothing.
--
-- KEYS 1 the nonce   ARGV 1 token of the spend
--
-- Its caller either holds the Spent of this token and knows that signing failed, or was never told
-- 'fresh' under this token and so has no Spent (its reply was lost). Nobody else has the token, and
-- from here on the record takes it no more. So at most one holder can exist at any time.
--
-- A call whose reply was lost may also not have arrived yet; the token left on an unspent record
-- turns it away when it does, instead of leaving a spend that nobody knows of.
local run_id, replid = current_history()
local nonce = redis.call('HMGET', KEYS[1], 'run_id', 'replid', 'state', 'token')
if nonce[1] ~= run_id or nonce[2] ~= replid then return 'not_yours' end
if nonce[3] == 'in_progress' and nonce[4] == ARGV[1] then
  redis.call('HSET', KEYS[1], 'state', 'reopened')
  return 'done'
end
if not nonce[3] then
  redis.call('HSET', KEYS[1], 'token', ARGV[1])
  return 'done'
end
return 'not_yours'
