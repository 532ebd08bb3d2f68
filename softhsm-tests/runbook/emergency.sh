# 1. IMMEDIATELY revoke the compromised key
curl -X POST http://signer:8080/api/v1/keys/{key_id}/revoke \
  -H "Content-Type: application/json" \
  -d '{
    "reason": "compromised",
    "initiated_by": "security-team"
  }'

# 2. Initiate emergency rotation (no overlap period)
curl -X POST http://signer:8080/api/v1/keys/rotate \
  -H "Content-Type: application/json" \
  -d '{
    "reason": "compromised",
    "initiated_by": "security-team",
    "emergency": true,
    "notes": "Key compromise incident"
  }'

# 3. Verify new key is active
curl -s http://signer:8080/api/v1/keys/active
