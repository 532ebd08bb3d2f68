-- Issues nonces, all or none.
--
-- KEYS 1 outstanding  2 spent  3 holders  4 totals  5 index of brought nonces  6... one for each nonce
-- ARGV 1 now  2 end of the window (seconds)  3 life of a record  4 life of the index (ms)
--      5 issuer  6 type  7 'bound' or 'any'  8 subject  9 quota  10 capacity  11 prefix of nonces
--      12 number of charges, whose keys and arguments stand at the end (charge.lua)
-- Returns 'issued', 'full', or 'limited', the number of the charge, and microseconds to wait.
--
-- Runs without allow-oom: over maxmemory Redis refuses the script before it does anything.
--
-- The records' life is counted by Redis' clock from this moment and lasts longer than the window;
-- whether the window has ended is decided by the caller's clock. A wrong clock here can make a
-- nonce unknown too early, never usable for longer.
local run_id, replid = current_history()
local outstanding, spent, holders, totals = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local issuer, prefix = ARGV[5], ARGV[11]
local charges = tonumber(ARGV[12])
local last = #KEYS - charges
local count = last - 5

-- 224 random bits meet only themselves: this call was carried out before, and its answer got lost.
local before = redis.call('HMGET', KEYS[6], 'run_id', 'replid')
if before[1] then
  if before[1] == run_id and before[2] == replid then return { 'issued', 0, 0 } end
  return redis.error_reply('ERR the store failed over while issuing')
end

-- Two for one: the store shrinks whenever more has expired than is issued.
forget_expired(outstanding, spent, holders, totals, prefix, ARGV[1], 2 * count)
if redis.call('EXISTS', outstanding) == 0 then
  -- Nothing is outstanding, so whatever somebody's DEL has left of the counts is wrong.
  redis.call('DEL', holders)
end

local held = tonumber(redis.call('ZSCORE', holders, issuer) or '0')
-- The last member of the index of brought nonces is its canary.
local brought = math.max(0, redis.call('ZCARD', KEYS[5]) - 1)
local size = redis.call('ZCARD', outstanding) + redis.call('ZCARD', spent) + brought
if held + count > tonumber(ARGV[9]) then return { 'issuer_full', 0, 0 } end
if size + count > tonumber(ARGV[10]) then return { 'full', 0, 0 } end

local refused, wait = charge(charges, 13)
if refused then return { 'limited', refused, wait } end

for i = 6, last do
  redis.call('HSET', KEYS[i], 'run_id', run_id, 'replid', replid, 'issuer', issuer, 'type', ARGV[6],
    'issued_at', ARGV[1], 'expires_at', ARGV[2])
  if ARGV[7] == 'bound' then
    redis.call('HSET', KEYS[i], 'subject', ARGV[8])
  end
  redis.call('PEXPIRE', KEYS[i], ARGV[3])
  redis.call('ZADD', outstanding, ARGV[2], string.sub(KEYS[i], #prefix + 1) .. ' ' .. issuer)
end
redis.call('ZINCRBY', holders, count, issuer)
-- The index outlives every nonce in it, and goes away by itself when nobody comes any more.
for i = 1, 3 do
  redis.call('PEXPIRE', KEYS[i], ARGV[4])
end
return { 'issued', 0, 0 }
