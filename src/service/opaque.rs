//! Signatures over data that means nothing to us, and the canary. What is signed is never the
//! caller's bytes alone but their DSSE pre-authentication encoding (PAE), which names the purpose:
//! otherwise a caller could hand in the canonical bytes of an attestation and get it signed
//! without nonce or policy.

use std::sync::Arc;

use crate::{
    attestation::{InvalidField, envelope::pae},
    audit::{Event, EventType},
    client::Client,
    evidence::Warrant,
    key::{KeyEntry, KeyState, Signature},
    service::{
        Error, Service,
        policy::{permit_key, permit_purpose},
        release::{Released, Usage},
        standby::signed_on,
    },
    token::standby::Signed,
};

/// DSSE v1 payload type of what `POST /api/v1/sign` signs, before the purpose.
pub const SIGN_PAYLOAD_TYPE: &str = "application/vnd.virtengine.veid.sign";

/// DSSE v1 payload type of the canary.
const CANARY_PAYLOAD_TYPE: &str = "application/vnd.virtengine.veid.canary";

/// Data to sign, in its envelope.
pub struct OpaqueOrder {
    pae: Vec<u8>,
}

impl Warrant for OpaqueOrder {
    fn message(&self) -> &[u8] {
        &self.pae
    }
}

impl OpaqueOrder {
    /// Data of a caller, for a purpose: 1 to 64 lower-case letters, digits, `.`, `_` or `-`.
    pub fn new(purpose: &str, data: &[u8]) -> Result<Self, InvalidField> {
        let valid = (1..=64).contains(&purpose.len())
            && purpose.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
        if !valid {
            return Err(InvalidField {
                field: "purpose",
                detail: "expected 1 to 64 lower-case letters, digits or the characters . _ -",
            });
        }
        Ok(Self { pae: pae(&payload_type(purpose), data) })
    }

    /// A challenge that only whoever has the key can sign.
    #[must_use]
    pub fn proof_of_possession(payload_type: &str, challenge: &str) -> Self {
        Self { pae: pae(payload_type, challenge.as_bytes()) }
    }

    /// A canary: proves that a key signs, and is worth nothing to anyone.
    #[must_use]
    pub fn canary(label: &str) -> Self {
        Self { pae: pae(CANARY_PAYLOAD_TYPE, label.as_bytes()) }
    }
}

/// The payload type for a purpose.
#[must_use]
pub fn payload_type(purpose: &str) -> String {
    format!("{SIGN_PAYLOAD_TYPE};purpose={purpose}")
}

/// A released signature over opaque data.
pub struct SignedOpaque {
    pub signature: Signature,
    pub key: Arc<KeyEntry>,
    pub audit_sequence: u64,
}

/// What verification of opaque data found.
pub struct OpaqueVerdict {
    pub key: Arc<KeyEntry>,
    pub state: KeyState,
    /// `None` when valid.
    pub reason: Option<&'static str>,
}

impl Service {
    /// Signs opaque data with the active key of the token that signs, or with the one that is named; a key that is not
    /// active is refused.
    pub async fn sign_opaque(
        &self,
        client: &Client,
        order: &OpaqueOrder,
        key_id: Option<&str>,
        purpose: &str,
    ) -> Result<SignedOpaque, Error> {
        self.in_service()?;
        self.keyring.freshen().await?;
        let now = self.clock.now();
        let named = key_id.map(|text| self.keyring.find_by_text(text)).transpose()?;
        let key = named.clone().map_or_else(|| self.signing_key(), Ok)?;
        let event = Event::of_client(EventType::KeyAccessed, "sign", key.id.to_string(), client, now);
        self.permit(permit_purpose(client, purpose).and_then(|()| permit_key(client, &key.id, true)), &event).await?;
        let mut turns = named.as_ref().map_or_else(|| self.turns(), |key| self.turns_of(key))?;
        loop {
            let key = turns.key().cloned().ok_or(Error::NoActiveKey)?;
            permit_key(client, &key.id, true)?;
            let event = |now| {
                Event::of_client(EventType::KeyAccessed, "sign", key.id.to_string(), client, now)
                    .detail("key_id", key.id.to_string())
                    .detail("purpose", purpose)
            };
            match self.sign_and_release(Usage::Sign(&mut turns), order, event).await {
                Ok(Released { signature, audit_sequence, .. }) => {
                    return Ok(SignedOpaque { signature, key, audit_sequence });
                }
                Err(refusal) if named.is_none() => self.taken_over(&mut turns, &key, refusal)?,
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// Verifies opaque data, with the named key or whichever of ours fits.
    pub fn verify_opaque(
        &self,
        order: &OpaqueOrder,
        signature: &Signature,
        key_id: Option<&str>,
    ) -> Result<OpaqueVerdict, Error> {
        let now = self.clock.now();
        let fits = |key: &KeyEntry| key.public_key.verify(order.message(), signature).is_ok();
        let (key, matches) = if let Some(text) = key_id {
            let key = self.keyring.find_by_text(text)?;
            let matches = fits(&key);
            (key, matches)
        } else {
            let standing = self.keyring.standing();
            match standing.keys().rev().find(|key| fits(key)) {
                Some(key) => (Arc::clone(key), true),
                None => (Arc::clone(standing.actives().next().ok_or(Error::NoActiveKey)?), false),
            }
        };
        let state = key.state(now);
        let reason = if !matches {
            Some("signature_mismatch")
        } else if !state.may_verify() {
            Some("key_not_trusted")
        } else {
            None
        };
        Ok(OpaqueVerdict { key, state, reason })
    }

    /// Signs and verifies a canary with the active key. The signature stays inside.
    pub async fn test_signing(&self, client: &Client) -> Result<Arc<KeyEntry>, Error> {
        self.keyring.freshen().await?;
        let now = self.clock.now();
        let order = OpaqueOrder::canary(&now.to_string());
        let mut turns = self.turns()?;
        let (key, Signed { signature, on }) = loop {
            let key = turns.key().cloned().ok_or(Error::NoActiveKey)?;
            match self.tokens.sign(&mut turns, &order).await {
                Ok(signed) => break (key, signed),
                Err(error) => self.taken_over(&mut turns, &key, error.into())?,
            }
        };
        let event = Event::of_client(EventType::KeyAccessed, "test", key.id.to_string(), client, now)
            .detail("key_id", key.id.to_string())
            .detail("purpose", "canary")
            .detail("signature_sha256", hex::encode(signature.digest()));
        self.audit.record(signed_on(event, on.as_ref())).await?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_envelope_is_the_published_one() {
        // The example of the DSSE v1 protocol document.
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    proptest! {
        #[test]
        fn no_opaque_data_can_pass_for_an_attestation(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let order = OpaqueOrder::new("any", &data).unwrap();
            // Canonical attestations begin with a brace, DER (certificates) with 0x30.
            prop_assert!(order.message().starts_with(b"DSSEv1 "));
        }

        #[test]
        fn envelopes_are_injective(a in "[ -~]{0,12}", b in "[ -~]{0,12}", c in "[ -~]{0,12}", d in "[ -~]{0,12}") {
            prop_assert_eq!(pae(&a, b.as_bytes()) == pae(&c, d.as_bytes()), a == c && b == d);
        }
    }
}
