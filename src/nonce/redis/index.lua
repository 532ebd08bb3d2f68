-- The index: each nonce is in exactly one of two sorted sets, by the end of its window, as
-- '<hex> <issuer>' while it is outstanding and as '<hex>' once it is spent. So the counts need no
-- walk, and what an issuer holds can be taken back even when the record itself is gone.
--
-- The index decides quotas and cleaning only. Whether a nonce may be spent is decided by its record
-- alone, so a lost or stale index never makes a second use possible.
local function no_longer_outstanding(holders, issuer)
  if tonumber(redis.call('ZINCRBY', holders, -1, issuer)) <= 0 then
    redis.call('ZREM', holders, issuer)
  end
end

-- Removes at most `limit` nonces whose window has ended by `now`; returns how many were unspent, and
-- spent.
local function forget_expired(outstanding, spent, holders, totals, prefix, now, limit)
  local expired = redis.call('ZRANGE', outstanding, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
  for _, member in ipairs(expired) do
    local hex, issuer = string.match(member, '^(%x+) (.*)$')
    redis.call('UNLINK', prefix .. hex)
    no_longer_outstanding(holders, issuer)
  end
  if #expired > 0 then
    redis.call('ZREMRANGEBYRANK', outstanding, 0, #expired - 1)
    redis.call('HINCRBY', totals, 'expired', #expired)
  end
  local used = redis.call('ZRANGE', spent, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit - #expired)
  for _, hex in ipairs(used) do
    redis.call('UNLINK', prefix .. hex)
  end
  if #used > 0 then
    redis.call('ZREMRANGEBYRANK', spent, 0, #used - 1)
  end
  return #expired, #used
end
