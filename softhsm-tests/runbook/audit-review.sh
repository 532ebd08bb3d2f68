# Review audit logs
curl -s "http://signer:8080/api/v1/audit?event_type=key_accessed&limit=100"

# Check for unusual signing patterns
curl -s "http://signer:8080/api/v1/audit?event_type=attestation_signed&limit=1000" | \
  jq 'group_by(.request.ip_address) | map({ip: .[0].request.ip_address, count: length})'
