-- Spends a nonce that a client brought. What is returned here counts only together with the WAIT
-- that follows on the same connection: brought/mod.rs holds the argument.
--
-- KEYS 1 the nonce  2 outstanding  3 spent  4 index of brought nonces
-- ARGV 1 incarnation that the caller knows  2 caller's clock and 3 how far ours may differ (ms)
--      4 why a first use is refused, or ''  5 issuer  6 type  7 digest of the content  8 token of
--      this call  9 hex of the nonce  10 life (ms)  11 capacity  12 now  13 end of the window (seconds)
--      14 number of charges, whose keys and arguments stand at the end (charge.lua)
-- Returns two texts, as spend.lua does; also 'closed', when the caller knows another incarnation
-- or another time.
--
-- The index decides whether a nonce has been used, the record what is answered. The index is
-- trimmed by this server's clock, and only once that agrees with the caller's.
if incarnation(KEYS[4]) ~= ARGV[1] then return { 'closed', 'incarnation' } end
local clock = clock_milliseconds()
if math.abs(clock - ARGV[2]) > tonumber(ARGV[3]) then return { 'closed', 'clock' } end

local run_id, replid = current_history()
local nonce = redis.call('HMGET', KEYS[1], 'run_id', 'replid', 'issuer', 'content', 'state', 'token', 'answer')
local state = nonce[5]
if state then
  if nonce[3] ~= ARGV[5] then return { 'replayed', nonce[3] } end
  if nonce[4] ~= ARGV[7] then return { 'refused', 'already_used' } end
  -- A settled answer is the same in every copy, and giving it out again signs nothing.
  if state == 'settled' then return { 'repeated', nonce[7] } end
  if nonce[1] ~= run_id or nonce[2] ~= replid then return { 'refused', 'store_failover' } end
  if state == 'in_progress' or nonce[6] == ARGV[8] then return { 'in_progress', '' } end
elseif redis.call('ZSCORE', KEYS[4], ARGV[9]) then
  -- Used, and somebody has deleted the record.
  return { 'refused', 'already_used' }
end
if ARGV[4] ~= '' then return { 'refused', ARGV[4] } end

if not state then
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', clock)
  local size = redis.call('ZCARD', KEYS[2]) + redis.call('ZCARD', KEYS[3]) + redis.call('ZCARD', KEYS[4]) - 1
  if size >= tonumber(ARGV[11]) then return { 'full', '' } end
  -- Whoever is turned away because there is no room pays nothing.
  local refused, wait = charge(tonumber(ARGV[14]), 15)
  if refused then return { 'limited', string.format('%d %.0f', refused, wait) } end
  redis.call('ZADD', KEYS[4], clock + ARGV[10], ARGV[9])
end
redis.call('HSET', KEYS[1], 'run_id', run_id, 'replid', replid, 'issuer', ARGV[5], 'type', ARGV[6], 'brought', '1',
  'issued_at', ARGV[12], 'expires_at', ARGV[13], 'state', 'in_progress', 'token', ARGV[8], 'content', ARGV[7])
redis.call('PEXPIRE', KEYS[1], ARGV[10])
return { 'fresh', '' }
