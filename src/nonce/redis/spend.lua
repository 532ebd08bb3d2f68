-- Spends a nonce in one atomic step.
--
-- KEYS 1 the nonce  2 outstanding  3 spent  4 holders
-- ARGV 1 now (whole seconds)  2 the latest issued_at that fits the timestamp
--      3 'future' when the timestamp lies too far ahead of now  4 issuer  5 type  6 subject
--      7 digest of the content  8 token of this call  9 hex of the nonce
--      10 number of charges, whose keys and arguments stand at the end (charge.lua)
-- Returns two texts: what came of it, and the reason, the answer, who has spent it, or which charge
-- was refused and the microseconds to wait.
--
-- Only a spend is charged: a retry that is told what it was told before costs nothing.
--
-- Single use. 'fresh' is returned only (a) in the step that takes the record from unspent or
-- reopened to in_progress, or (b) to the very call, known by its random token, that did so before
-- and whose reply got lost. Scripts run one at a time, and history.lua argues that all steps on
-- this record that get past its check saw each other's writes; so no two calls are told 'fresh'
-- unless the first one was reopened, which its caller does only when nothing was released.
--
-- A token is good for one spend: once its call is over (reopened, or given up), the record keeps it
-- so that a copy of the call still under way on a dead connection finds itself out of date.
--
-- The mark is the first write but for the charges. Should anything after it fail, the nonce stays spent.
--
-- allow-oom: a spend adds some 150 bytes to a record that was admitted when it was issued, and some
-- to buckets that empty themselves, so it goes on when the store is full. Other errors, and an OOM all the same, are the caller's 503.
local run_id, replid = current_history()
local nonce = redis.call('HMGET', KEYS[1], 'run_id', 'replid', 'issuer', 'type', 'subject', 'issued_at',
  'expires_at', 'state', 'token', 'content', 'answer', 'brought')
local state, token, content = nonce[8], nonce[9], nonce[10]

-- A client brought it: claim.lua decides, with its own precautions.
if nonce[12] then return { 'brought', '' } end
if not nonce[1] or not nonce[6] or not nonce[7] then return { 'refused', 'not_found' } end

-- A record of another history is refused, unless it only has to repeat what it holds: a settled
-- answer is the same in every copy, and giving it out again signs nothing.
local same_history = nonce[1] == run_id and nonce[2] == replid
local repeats = state == 'settled' and nonce[3] == ARGV[4] and content == ARGV[7]
if not same_history and not repeats then return { 'refused', 'store_failover' } end

-- Who asks comes first: to anyone else the nonce shows nothing of itself.
if nonce[3] ~= ARGV[4] then
  if state then return { 'replayed', nonce[3] } end
  return { 'refused', 'issuer_mismatch' }
end
if tonumber(ARGV[1]) >= tonumber(nonce[7]) then return { 'refused', 'expired' } end
if nonce[4] ~= ARGV[5] then return { 'refused', 'type_mismatch' } end
if nonce[5] and nonce[5] ~= ARGV[6] then return { 'refused', 'subject_mismatch' } end
if tonumber(nonce[6]) > tonumber(ARGV[2]) or ARGV[3] == 'future' then
  return { 'refused', 'invalid_timestamp' }
end

if state and content ~= ARGV[7] then return { 'refused', 'already_used' } end
if state == 'settled' then return { 'repeated', nonce[11] } end
if state == 'in_progress' then
  return { token == ARGV[8] and 'fresh' or 'in_progress', '' }
end
if token == ARGV[8] then return { 'in_progress', '' } end

-- What was reopened has been paid for.
local refused, wait
if not state then refused, wait = charge(tonumber(ARGV[10]), 11) end
if refused then return { 'limited', string.format('%d %.0f', refused, wait) } end

redis.call('HSET', KEYS[1], 'state', 'in_progress', 'token', ARGV[8], 'content', ARGV[7])
if not state and redis.call('ZREM', KEYS[2], ARGV[9] .. ' ' .. ARGV[4]) == 1 then
  redis.call('ZADD', KEYS[3], nonce[7], ARGV[9])
  no_longer_outstanding(KEYS[4], ARGV[4])
end
return { 'fresh', '' }
