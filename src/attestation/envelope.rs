//! What a key signs that is no attestation: always a DSSE v1 pre-authentication encoding, which names
//! what it is. Canonical bytes begin with a brace, so neither is ever taken for the other.

/// DSSE v1 PAE: `"DSSEv1" SP LEN(type) SP type SP LEN(body) SP body`.
#[must_use]
pub fn pae(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
