# Trigger manual cleanup
curl -X POST http://signer:8080/api/v1/nonce/cleanup

# Check cleanup results
curl -s http://signer:8080/api/v1/nonce/stats
