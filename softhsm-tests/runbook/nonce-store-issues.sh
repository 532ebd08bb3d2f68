# Check nonce store stats
curl -s http://signer:8080/api/v1/nonce/stats

# Check Redis memory
redis-cli -h redis INFO memory

# Review nonce rejection reasons
curl -s http://signer:9090/metrics | grep nonce_rejected_total
