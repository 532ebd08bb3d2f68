# 1. Check sentinel status
redis-cli -h redis-sentinel SENTINEL get-master-addr-by-name mymaster

# 2. If failover not automatic, trigger manually
redis-cli -h redis-sentinel SENTINEL failover mymaster

# 3. Verify new master
redis-cli -h redis-sentinel SENTINEL get-master-addr-by-name mymaster

# 4. Check signer reconnection
curl -s http://signer:8080/healthz
