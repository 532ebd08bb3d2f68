-- What a claim is made under: the server's history; a canary that goes with any clearing; how often a
-- replica has come, so that one that went away and came back is noticed; how many keys the server has
-- ever thrown away, and that it throws none away now.
--
-- The canary is the last member of the index of brought nonces, so it cannot outlive the index:
-- whoever deletes the index deletes the canary, and whoever deletes only records leaves the index,
-- which remembers the nonces too.
local function incarnation(index)
  local run_id, replid = current_history()
  local info = redis.call('INFO', 'memory', 'stats')
  local canary = redis.call('ZRANGE', index, -1, -1)[1] or ''
  if string.sub(canary, 1, 7) ~= 'canary ' then canary = 'none' end
  local parts = { run_id, replid, canary }
  for _, name in ipairs({ 'sync_full', 'sync_partial_ok', 'maxmemory_policy', 'evicted_keys' }) do
    table.insert(parts, info_field(info, name) or 'unknown')
  end
  return table.concat(parts, ' ')
end

local function clock_milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
