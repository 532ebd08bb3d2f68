//! The token: the only room that knows PKCS#11. Keys are generated and used in it and nowhere else.
//!
//! One process-wide module context ([`module`]) holds the login. Lanes of worker threads
//! ([`lane`]) each own a session and a cache of object handles, behind a bounded queue with a
//! deadline for every call, so that nothing asynchronous ever waits inside PKCS#11. The place of a worker
//! whose call does not end is filled ([`crew`]), until too many hang ([`hung`]): then
//! [`Token::until_stuck`] returns, and only a new process has a working module.
//!
//! What can be asked is a list of values ([`verb`]), so that the module can be loaded by this process
//! ([`local`]) or by one of its own ([`isolation`]).

mod audit_key;
pub mod bare;
mod capacity;
mod certificate;
mod config;
mod crew;
mod error;
pub mod explain;
mod generate;
mod hung;
pub mod isolation;
mod lane;
mod ledger;
mod local;
mod look;
mod mechanism;
mod module;
mod pin;
pub mod provision;
mod recovery;
mod session;
pub mod standby;
mod template;
mod uri;
mod verb;
mod verified;

use std::{path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

pub use audit_key::{AuditKey, label_prefix as audit_label_prefix};
pub use certificate::InvalidChain;
pub use config::{Config, Keys, PinSource};
pub use error::{CallError, Error, PinProblem};
pub use generate::{GenerateRequest, GeneratedKey};
pub use ledger::DataObjectLedger;
pub use look::{Look, Seen, look};
pub use module::TokenIdentity;
pub use pin::PinDesk;
pub use template::{KeyAttributes, OptionalAttribute};
pub use uri::{InvalidUri, TokenUri};
pub use verified::{NotCovered, VerifiedSignature};

use crate::{
    evidence::{TreeHead, Warrant},
    key::{Algorithm, KeyEntry, PublicKey, Signature, SignerId, StoredRecord},
};
use isolation::Remote;
use local::Local;
use verb::{Answer, Request};

/// The application name of every data object that is ours (CKA_APPLICATION).
pub const APPLICATION: &str = "verification-signer";

/// A key object of ours, as the token lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyObject {
    pub object_id: Vec<u8>,
    pub label: String,
    pub is_private: bool,
}

/// Which key object to use, and what its signatures must verify with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRef {
    pub object_id: Vec<u8>,
    pub public_key: PublicKey,
}

impl From<&KeyEntry> for KeyRef {
    fn from(entry: &KeyEntry) -> Self {
        Self { object_id: entry.object_id.clone(), public_key: entry.public_key.clone() }
    }
}

/// A logged-in token. Closed when dropped.
pub struct Token {
    way: Way,
    identity: TokenIdentity,
    algorithms: Vec<Algorithm>,
    config: Config,
}

/// Where the module is.
enum Way {
    Here(Box<Local>),
    InAProcessOfItsOwn(Remote),
}

impl Token {
    /// Loads the module, finds the one token the URI names, logs in (once), starts the lanes: here or
    /// in a process of its own, as the configuration says.
    ///
    /// Blocking: call it before the server starts, or from a blocking thread.
    pub fn open(config: &Config, pins: PinDesk) -> Result<Self, Error> {
        let desk = pins.clone();
        let (way, identity, algorithms) = if config.isolation {
            let (remote, opened) = Remote::open(config, pins)?;
            (Way::InAProcessOfItsOwn(remote), opened.identity, opened.algorithms)
        } else {
            let local = Local::open(config, Arc::new(pins))?;
            let (identity, algorithms) = (local.module.identity().clone(), local.module.algorithms().to_vec());
            (Way::Here(Box::new(local)), identity, algorithms)
        };
        desk.accepted(&identity);
        Ok(Self { way, identity, algorithms, config: config.clone() })
    }

    /// Ends every call and finalizes the module. Doing it twice is harmless.
    pub fn close(&self) -> Result<(), Error> {
        match &self.way {
            Way::Here(local) => local.close(),
            Way::InAProcessOfItsOwn(remote) => remote.close(),
        }
    }

    /// Whether so many calls hang that only a new process has a working module again.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        match &self.way {
            Way::Here(local) => local.module.hung().is_too_much(),
            // That process ends itself, and is replaced.
            Way::InAProcessOfItsOwn(_) => false,
        }
    }

    /// Waits until [`Token::is_stuck`].
    pub async fn until_stuck(&self) {
        match &self.way {
            Way::Here(local) => local.module.hung().until_too_much().await,
            Way::InAProcessOfItsOwn(_) => std::future::pending().await,
        }
    }

    /// Which token this is.
    #[must_use]
    pub fn identity(&self) -> &TokenIdentity {
        &self.identity
    }

    /// The module's path.
    #[must_use]
    pub fn module_path(&self) -> &Path {
        &self.config.module
    }

    /// The algorithms this token can generate and sign with, found out at start.
    #[must_use]
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// How often the process that holds the module has ended unasked; `None` when it is this one.
    #[must_use]
    pub fn losses(&self) -> Option<u64> {
        match &self.way {
            Way::Here(_) => None,
            Way::InAProcessOfItsOwn(remote) => Some(remote.losses()),
        }
    }

    /// Signs what `warrant` justifies. The signature is checked against the public key before
    /// anything else sees it, unless the configuration says otherwise.
    pub async fn sign(&self, key: &KeyRef, warrant: &impl Warrant) -> Result<VerifiedSignature, Error> {
        let algorithm = key.public_key.algorithm();
        let input = algorithm.token_input(warrant.message()).into_owned();
        let raw: Vec<u8> = self.ask(Request::Sign { object_id: key.object_id.clone(), algorithm, input }).await?;
        VerifiedSignature::check(key, warrant, &raw, self.config.verify_signatures)
    }

    /// Signs the head of a tree. Beside the signing lane: a checkpoint keeps no request waiting.
    pub async fn sign_tree_head(&self, key: &AuditKey, head: &impl TreeHead) -> Result<Signature, Error> {
        let algorithm = key.public_key.algorithm();
        let input = algorithm.token_input(head.text()).into_owned();
        let request = Request::SignTreeHead { object_id: key.object_id.clone(), algorithm, input };
        let raw: Vec<u8> = self.ask(request).await?;
        let signature = key.public_key.normalize(&raw).map_err(|_| Error::BadSignature)?;
        key.public_key.verify(head.text(), &signature).map_err(|_| Error::BadSignature)?;
        Ok(signature)
    }

    /// Generates a key pair and its certificate, reads both back, and proves the key by a signature.
    pub async fn generate(&self, request: GenerateRequest) -> Result<GeneratedKey, Error> {
        self.ask(Request::Generate(request)).await
    }

    /// The signer's audit keys, the newest first.
    pub async fn audit_keys(&self, signer: &SignerId) -> Result<Vec<AuditKey>, Error> {
        self.ask(Request::AuditKeys { prefix: audit_label_prefix(signer) }).await
    }

    /// Makes a new audit key.
    pub async fn generate_audit_key(&self, signer: &SignerId) -> Result<AuditKey, Error> {
        self.ask(Request::GenerateAuditKey { prefix: audit_label_prefix(signer) }).await
    }

    /// What the token reports of a private key, checked against the policy for our keys.
    pub async fn key_attributes(&self, object_id: Vec<u8>) -> Result<KeyAttributes, Error> {
        self.ask(Request::KeyAttributes { object_id }).await
    }

    /// A PKCS#10 certificate request (RFC 2986) for a key, signed by it.
    pub async fn certificate_request(&self, key: &KeyRef, common_name: String) -> Result<Vec<u8>, Error> {
        self.ask(Request::Pkcs10 { key: key.clone(), common_name }).await
    }

    /// Checks that a PEM chain is for a key, and stores it beside the key.
    pub async fn store_chain(&self, key: &KeyEntry, pem: &[u8], at: i64) -> Result<Result<(), InvalidChain>, Error> {
        let chain = match certificate::parse_chain(pem, &key.public_key) {
            Ok(chain) => chain,
            Err(invalid) => return Ok(Err(invalid)),
        };
        let (object_id, label) = (key.object_id.clone(), key.label.clone());
        self.ask(Request::StoreChain { object_id, label, at, chain }).await.map(Ok)
    }

    /// Whether attributes that the token reports are those our keys must have.
    pub fn check_attributes(&self, attributes: &KeyAttributes) -> Result<(), String> {
        attributes.check(&self.config.omit, self.config.reports_local)
    }

    /// The certificates stored for a key, its own first.
    pub async fn certificates(&self, object_id: Vec<u8>) -> Result<Vec<Vec<u8>>, Error> {
        self.ask(Request::Certificates { object_id }).await
    }

    /// Key objects on the token whose label begins with `prefix`.
    pub async fn key_objects(&self, prefix: String) -> Result<Vec<KeyObject>, Error> {
        self.ask(Request::KeyObjects { prefix }).await
    }

    /// The public half of a key whose two halves are there under this id and label.
    pub(crate) async fn held_key(
        &self,
        object_id: Vec<u8>,
        label: String,
        algorithm: Algorithm,
    ) -> Result<PublicKey, Error> {
        self.ask(Request::HeldKey { object_id, label, algorithm }).await
    }

    /// Destroys a private key object; true when it was still there.
    pub async fn destroy_private_key(&self, object_id: Vec<u8>) -> Result<bool, Error> {
        self.ask(Request::DestroyPrivateKey { object_id }).await
    }

    /// Destroys what an unfinished generation left under this id, if its label begins with `prefix`.
    pub async fn destroy_leftovers(&self, object_id: Vec<u8>, prefix: String) -> Result<(), Error> {
        self.ask(Request::DestroyLeftovers { object_id, prefix }).await
    }

    /// A random CKA_ID that no object on the token has.
    pub async fn unused_object_id(&self) -> Result<Vec<u8>, Error> {
        self.ask(Request::UnusedObjectId).await
    }

    /// Destroys one data object of ours.
    pub(crate) async fn destroy_data_object(&self, label: String) -> Result<(), Error> {
        self.ask(Request::DestroyDataObject { label }).await
    }

    /// Every data object of ours.
    pub(crate) async fn data_objects(&self) -> Result<Vec<StoredRecord>, Error> {
        self.ask(Request::DataObjects).await
    }

    /// Stores one data object of ours.
    pub(crate) async fn create_data_object(&self, record: StoredRecord) -> Result<(), Error> {
        self.ask(Request::CreateDataObject(record)).await
    }

    /// Whether the token answers: C_GetTokenInfo, which notices a token that has gone while
    /// C_FindObjects still says "nothing found".
    pub async fn ping(&self) -> Result<(), Error> {
        self.ask(Request::Ping).await
    }

    async fn ask<T: TryFrom<Answer, Error = Error>>(&self, request: Request) -> Result<T, Error> {
        let answer = match &self.way {
            Way::Here(local) => local.perform(request).await,
            Way::InAProcessOfItsOwn(remote) => remote.perform(request).await,
        };
        answer?.try_into()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the token could not be closed");
        }
    }
}
