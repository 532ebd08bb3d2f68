#!/usr/bin/env bash
# The main job, end to end, on a throw-away SoftHSM2 token: nonce, attestation, verification by
# openssl, a look into the token with pkcs11-tool.
set -euo pipefail

binary=${1:?the verification-signer binary}
state=$(mktemp -d)
server=
finish() {
  [ -z "$server" ] || { kill -TERM "$server" 2>/dev/null && wait "$server"; } || true
  rm -rf "$state"
}
trap finish EXIT
step() { printf '\n== %s\n' "$*"; }
fail() { echo "demo: $*" >&2; exit 1; }

step "start: a new token with a random PIN, a key generated inside it"
"$binary" dev --state-dir "$state/dev" --http 127.0.0.1:0 --metrics 127.0.0.1:0 > "$state/ready" 2> "$state/log" &
server=$!
for _ in $(seq 600); do
  grep -q '^ready: ' "$state/ready" && break
  kill -0 "$server" 2>/dev/null || { cat "$state/log" >&2; fail "the server ended"; }
  sleep 0.05
done
cat "$state/ready"
api=$(sed -n 's/^ready: API \(http[^ ]*\).*/\1/p' "$state/ready")
[ -n "$api" ] || fail "the server did not become ready"

post() { curl -sS --fail-with-body -X POST "$api$1" -H 'Content-Type: application/json' -d "$2"; }

step "fetch a nonce"
issued=$(post /api/v1/nonces '{"attestation_type":"facial_verification"}')
printf '%s\n' "$issued"
nonce=$(jq -r .nonce <<< "$issued")

step "have an attestation signed"
post /api/v1/attestations '{
  "type": "facial_verification",
  "subject": { "account_address": "virtengine1qyfe" },
  "nonce": "'"$nonce"'",
  "validity_seconds": 86400,
  "verification_proofs": [{
    "proof_type": "facial_match",
    "content_hash": "abababababababababababababababababababababababababababababababab",
    "score": 91, "passed": true, "threshold": 80, "timestamp": "2026-11-23T09:59:58.25Z"
  }],
  "score": 91,
  "confidence": 88
}' > "$state/attestation.json"
jq . "$state/attestation.json"

step "verify it with openssl and the exported public key"
key_id=$(jq -r .issuer.key_id "$state/attestation.json")
curl -sS "$api/api/v1/keys/$key_id/public.pem" > "$state/public.pem"
# What was signed: the object without its proof, as compact JSON.
jq -cj 'del(.proof)' "$state/attestation.json" > "$state/statement"
# openssl wants r and s as a DER SEQUENCE.
signature=$(jq -r .proof.proof_value "$state/attestation.json" | base64 -d | od -An -v -tx1 | tr -d ' \n')
printf 'asn1=SEQUENCE:rs\n[rs]\nr=INTEGER:0x%s\ns=INTEGER:0x%s\n' "${signature:0:64}" "${signature:64:64}" > "$state/rs.cnf"
openssl asn1parse -genconf "$state/rs.cnf" -out "$state/signature.der" -noout
openssl dgst -sha256 -verify "$state/public.pem" -signature "$state/signature.der" "$state/statement"

step "look at the key with pkcs11-tool"
token=$(sed -n 's/.*pkcs11:token=\([^;]*\);.*/\1/p' "$state/ready")
# The PIN goes in by the environment, which ps does not show.
SOFTHSM2_CONF="$state/dev/softhsm2.conf" PIN=$(cat "$state/dev/pin") \
  pkcs11-tool --module "${SOFTHSM2_MODULE:-/usr/lib/softhsm/libsofthsm2.so}" --token-label "$token" --login --pin env:PIN \
  --list-objects --type privkey

step "stop"
kill -TERM "$server"
wait "$server" || fail "the server did not stop cleanly: $?"
server=

cat <<END

Try it yourself:
  $binary dev &
  curl -s http://127.0.0.1:8080/healthz | jq .
  curl -s http://127.0.0.1:8080/api/v1/keys | jq .
  curl -s http://127.0.0.1:8080/.well-known/jwks.json | jq .
  curl -s -X POST http://127.0.0.1:8080/api/v1/nonces -H 'Content-Type: application/json' -d '{"attestation_type":"email_verification"}'
  curl -s -X POST http://127.0.0.1:8080/api/v1/sign/test
  curl -s http://127.0.0.1:9090/metrics | grep virtengine_

demo: ok (signed in the token, verified by openssl)
END
