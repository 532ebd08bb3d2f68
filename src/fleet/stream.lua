-- Copies of audit records, the oldest of which make room.
--
-- KEYS 1 stream   ARGV 1 instance  2 about how many are kept  3... records
for i = 3, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'instance', ARGV[1], 'record', ARGV[i])
end
return 'done'
