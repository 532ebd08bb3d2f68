# 1. Check current key status
curl -s http://signer:8080/api/v1/keys | jq .

# 2. Verify health
curl -s http://signer:8080/healthz

# 3. Initiate rotation via API
curl -X POST http://signer:8080/api/v1/keys/rotate \
  -H "Content-Type: application/json" \
  -d '{
    "reason": "rotation",
    "initiated_by": "ops-team",
    "notes": "Scheduled rotation"
  }'

# 4. Monitor rotation progress
curl -s http://signer:8080/api/v1/rotations/{rotation_id}

# 5. Verify new key is active
curl -s http://signer:8080/api/v1/keys/active

# 6. Complete rotation after overlap period
curl -X POST http://signer:8080/api/v1/rotations/{rotation_id}/complete
