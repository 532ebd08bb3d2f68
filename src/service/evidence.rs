//! Provenance: what the token itself says of a key, with a fresh proof that it is there, and the
//! command with which anyone can ask the token the same.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::{
    attestation::InvalidField,
    audit::{Event, EventType, Severity},
    client::Client,
    key::{KeyEntry, KeyId},
    service::{Error, Service, opaque::OpaqueOrder, release::Usage},
    token::{KeyAttributes, KeyRef, Token},
};

/// The body of `GET /api/v1/keys/{key_id}/evidence`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Evidence {
    key_id: KeyId,
    fingerprint: String,
    /// True when every attribute is what the policy for our keys demands.
    conforms: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    deviation: Option<String>,
    attributes: KeyAttributes,
    token: TokenFacts,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof_of_possession: Option<Proof>,
    /// Shows the same, asked of the token directly.
    pkcs11_tool: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct TokenFacts {
    label: String,
    serial: String,
    manufacturer: String,
    model: String,
    object_id: String,
    object_label: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ProofOfPossession)]
struct Proof {
    challenge: String,
    /// DSSE v1 payload type under which the challenge (as text) was signed.
    payload_type: &'static str,
    signature: String,
}

/// DSSE v1 payload type of a proof of possession.
const PROOF_PAYLOAD_TYPE: &str = "application/vnd.virtengine.veid.proof-of-possession";

impl Service {
    /// Asks the token about a key; with a challenge, has the key sign it.
    pub async fn evidence(&self, client: &Client, key_id: &str, challenge: Option<&str>) -> Result<Evidence, Error> {
        let key = self.keyring.find_by_text(key_id)?;
        if let Some(at) = key.destroyed_at {
            return Err(Error::KeyDestroyed { id: key.id.clone(), at });
        }
        let token = self.token_with(&key.line)?;
        let attributes = token.key_attributes(key.object_id.clone()).await?;
        let deviation = token.check_attributes(&attributes).err();
        let event = |now| {
            Event::of_client(EventType::KeyAccessed, "evidence", key.id.to_string(), client, now)
                .detail("key_id", key.id.to_string())
        };
        let proof_of_possession = match challenge {
            None => {
                self.audit.record(event(self.clock.now())).await?;
                None
            }
            Some(challenge) => {
                let well_formed =
                    (16..=128).contains(&challenge.len()) && challenge.bytes().all(|b| b.is_ascii_alphanumeric());
                if !well_formed {
                    return Err(InvalidField {
                        field: "challenge",
                        detail: "expected 16 to 128 ASCII letters and digits",
                    }
                    .into());
                }
                self.keyring.freshen().await?;
                self.keyring.may_release(&key.id, self.clock.now())?;
                let order = OpaqueOrder::proof_of_possession(PROOF_PAYLOAD_TYPE, challenge);
                let event = |now| event(now).detail("purpose", "proof_of_possession").detail("challenge", challenge);
                let signature = self.sign_and_release(Usage::Prove(&token, &key), &order, event).await?.signature;
                Some(Proof {
                    challenge: challenge.to_owned(),
                    payload_type: PROOF_PAYLOAD_TYPE,
                    signature: STANDARD.encode(signature.as_bytes()),
                })
            }
        };
        let identity = token.identity();
        let object_id = hex::encode(&key.object_id);
        Ok(Evidence {
            fingerprint: key.public_key.fingerprint(),
            conforms: deviation.is_none(),
            deviation,
            attributes,
            pkcs11_tool: format!(
                "pkcs11-tool --module {} --token-label {} --login --list-objects --type privkey --id {object_id}",
                token.module_path().display(),
                identity.label,
            ),
            token: TokenFacts {
                label: identity.label.clone(),
                serial: identity.serial.clone(),
                manufacturer: identity.manufacturer.clone(),
                model: identity.model.clone(),
                object_id,
                object_label: key.label.clone(),
            },
            proof_of_possession,
            key_id: key.id.clone(),
        })
    }

    /// A PKCS#10 request for a key, for a CA to certify.
    pub async fn certificate_request(&self, client: &Client, key_id: &str) -> Result<Vec<u8>, Error> {
        let key = self.keyring.find_by_text(key_id)?;
        self.keyring.freshen().await?;
        self.keyring.may_release(&key.id, self.clock.now())?;
        let der = self.token_with(&key.line)?.certificate_request(&KeyRef::from(&*key), key.id.to_string()).await?;
        let event = Event::of_client(
            EventType::KeyAccessed,
            "certificate_request",
            key.id.to_string(),
            client,
            self.clock.now(),
        )
        .detail("key_id", key.id.to_string());
        self.audit.record(event).await?;
        self.keyring.may_release(&key.id, self.clock.now())?;
        Ok(der)
    }

    /// Stores the chain that a CA has issued for a key; from then on it is served.
    pub async fn install_chain(&self, client: &Client, key_id: &str, pem: &[u8]) -> Result<(), Error> {
        let key = self.keyring.find_by_text(key_id)?;
        let home = self.home(&key.line).await?;
        let now = self.clock.now();
        let event = Event::of_client(EventType::ConfigChanged, "install_certificate", key.id.to_string(), client, now)
            .detail("key_id", key.id.to_string());
        let work = async { home.token.store_chain(&key, pem, now.unix_milliseconds()).await?.map_err(Error::Chain) };
        self.on_record(event.clone(), work, |()| event).await
    }

    /// Looks whether the attributes of each token's active key are still what they must be. A deviation is an
    /// alarm; on a token that keeps its promises it cannot happen.
    pub async fn watch_attributes(&self) -> Result<(), Error> {
        let standing = self.keyring.standing();
        let homes = self.tokens.homes().filter_map(|(_, line)| Some((self.tokens.home(line)?, standing.active(line)?)));
        let mut watched = Ok(());
        for (token, key) in homes {
            watched = watched.and(self.watch_key(&token, key).await);
        }
        watched
    }

    async fn watch_key(&self, token: &Token, key: &KeyEntry) -> Result<(), Error> {
        let attributes = token.key_attributes(key.object_id.clone()).await?;
        if let Err(deviation) = token.check_attributes(&attributes) {
            tracing::error!(key_id = %key.id, deviation, "the active key's attributes have changed");
            let event =
                Event::of_service(EventType::SecurityAlert, "watch_attributes", key.id.to_string(), self.clock.now())
                    .failed(Severity::Critical)
                    .detail("key_id", key.id.to_string())
                    .detail("deviation", deviation);
            self.audit.record(event).await?;
        }
        Ok(())
    }
}
