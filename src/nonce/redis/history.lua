-- The store's history: which contiguous stretch of being a master this data has lived through.
--
-- A record may be acted on only under the history it was issued in. Why that is enough:
--
-- 1. run_id is drawn at random when the server process starts. A restart, whatever it loads back
--    from RDB or AOF and however much of it is lost, is another history.
-- 2. master_replid is drawn at random whenever a replica becomes a master (replicationUnsetMaster).
--    So between two moments at which one process, as a master, shows one replid, it was never a
--    replica, and nobody has put other data in place of its own: a demoted master that
--    resynchronised and was promoted again keeps its run_id but not its replid. A replica does show
--    its master's replid, but not its run_id, and it is refused below.
-- 3. Hence all scripts that see one history ran one after the other in one memory, and each saw all
--    that the earlier ones wrote. No acknowledged spend can be missing: not after a failover that
--    lost writes, not with two masters, of which only one has the history of a given nonce.
--
-- Deleting (FLUSHALL, DEL, eviction, a time to live) makes a nonce unknown, and unknown is refused.
-- What this does not see: a snapshot of the server's memory that is brought back to life (a virtual
-- machine reverted while running), and records written back by hand (RESTORE, MIGRATE ... REPLACE,
-- DEBUG RELOAD NOSAVE). Whoever can do that can do anything here.
--
-- Redis draws a new replid for a master in two more cases, when its first replica ever attaches and
-- an hour after its last replica left (repl-backlog-ttl). Both only cost clients a new nonce.
--
-- Plain searches: patterns would take twice as long as all the rest of these functions.
local function info_field(info, name)
  local _, colon = string.find(info, '\n' .. name .. ':', 1, true)
  return colon and string.sub(info, colon + 1, string.find(info, '\r', colon, true) - 1)
end

local function current_history()
  local info = redis.call('INFO', 'server', 'replication')
  local run_id, replid = info_field(info, 'run_id'), info_field(info, 'master_replid')
  if info_field(info, 'role') ~= 'master' then
    -- The word that Redis itself would say; a replica with replica-read-only off would not.
    error(redis.error_reply('READONLY this server is not a master'))
  end
  if not run_id or not replid then
    error(redis.error_reply('ERR INFO shows no run_id or no master_replid'))
  end
  return run_id, replid
end
