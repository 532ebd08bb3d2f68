# Verify attestation signing works
curl -X POST http://signer:8080/api/v1/sign/test

# Check metrics
curl -s http://signer:9090/metrics | grep signer_active_keys

# Review audit logs for rotation events
curl -s http://signer:8080/api/v1/audit?event_type=key_rotated
