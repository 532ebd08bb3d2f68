-- What the server says of itself, and its clock. A script, so that in a Cluster the key leads it to
-- the node that holds the nonces.
--
-- KEYS 1 any key of the store
return { redis.call('INFO', 'server', 'replication', 'memory', 'stats', 'persistence'), redis.call('TIME') }
