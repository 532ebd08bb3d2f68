//! The token: the only room that knows PKCS#11. Keys are generated and used in it and nowhere else.
//!
//! One process-wide module context ([`module`]) holds the login. Lanes of worker threads
//! ([`lane`]) each own a session and a cache of object handles, behind a bounded queue with a
//! deadline for every call, so that nothing asynchronous ever waits inside PKCS#11. The place of a worker
//! whose call does not end is filled ([`crew`]), until too many hang ([`hung`]): then
//! [`Token::until_stuck`] returns, and only a new process has a working module.

mod audit_key;
mod capacity;
mod certificate;
mod config;
mod crew;
mod error;
pub mod explain;
mod generate;
mod hung;
mod lane;
mod ledger;
mod look;
mod mechanism;
mod module;
pub mod provision;
mod recovery;
mod session;
mod template;
mod uri;
mod verified;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use secrecy::SecretString;

pub use audit_key::{AuditKey, label_prefix as audit_label_prefix};
pub use certificate::InvalidChain;
pub use config::{Config, PinSource};
pub use error::{CallError, Error, PinProblem};
pub use generate::{GenerateRequest, GeneratedKey};
pub use ledger::DataObjectLedger;
pub use look::{Look, Seen, look};
pub use module::TokenIdentity;
pub use template::{KeyAttributes, OptionalAttribute};
pub use uri::{InvalidUri, TokenUri};
pub use verified::{NotCovered, VerifiedSignature};

use crate::{
    evidence::Warrant,
    key::{Algorithm, KeyEntry, PublicKey, StoredRecord},
};
use crew::Calls;
use lane::Lane;
use module::Module;

/// The application name of every data object that is ours (CKA_APPLICATION).
pub const APPLICATION: &str = "verification-signer";

/// How long a call in progress may hold up the end of the process.
const CLOSING: Duration = Duration::from_secs(5);

/// A key object of ours, as the token lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyObject {
    pub object_id: Vec<u8>,
    pub label: String,
    pub is_private: bool,
}

/// Which key object to use, and what its signatures must verify with.
#[derive(Clone, Debug)]
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
    module: Arc<Module>,
    signing: Lane,
    lifecycle: Lane,
    ledger: Lane,
    reading: Lane,
    asking: Lane,
    deadline: Duration,
    verify_signatures: bool,
    module_path: PathBuf,
}

impl Token {
    /// Loads the module, finds the one token the URI names, logs in (once), starts the lanes.
    ///
    /// Blocking: call it before the server starts, or from a blocking thread.
    pub fn open(config: &Config, pin: &SecretString) -> Result<Self, Error> {
        let module = Arc::new(Module::open(config, pin)?);
        Ok(Self {
            signing: Lane::start(
                "token-sign",
                module.workers(config.workers),
                config.queue,
                Calls::SideBySide,
                &module,
            )?,
            // One worker: generations and destructions are serialised.
            lifecycle: Lane::start("token-lifecycle", 1, 64, Calls::OneByOne, &module)?,
            // A revocation is a record: it must not wait for a generation either.
            ledger: Lane::start("token-ledger", 1, 64, Calls::OneByOne, &module)?,
            // Readings of the ledger renew the right to sign: they must not wait for a generation.
            reading: Lane::start("token-read", 1, 64, Calls::SideBySide, &module)?,
            // What callers may ask as often as they like: attributes, certificates, health.
            asking: Lane::start("token-ask", 1, 64, Calls::SideBySide, &module)?,
            module,
            deadline: config.call_deadline,
            verify_signatures: config.verify_signatures,
            module_path: config.module.clone(),
        })
    }

    /// Ends the lanes, closes every session, and finalizes the module. Doing it twice is harmless.
    ///
    /// It must be done before the process ends: a worker that is still inside the module while
    /// `exit` takes the module's own data down crashes.
    pub fn close(&self) -> Result<(), Error> {
        if self.is_stuck() {
            return Err(Error::Deadline(self.deadline));
        }
        let ended =
            [&self.signing, &self.lifecycle, &self.ledger, &self.reading, &self.asking].map(|lane| lane.stop(CLOSING));
        // C_Finalize under a thread that hangs in a call would crash or hang as well.
        if ended == [true; 5] { self.module.close() } else { Err(Error::Deadline(CLOSING)) }
    }

    /// Whether so many calls hang that only a new process has a working module again.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.module.hung().is_too_much()
    }

    /// Waits until [`Token::is_stuck`].
    pub async fn until_stuck(&self) {
        self.module.hung().until_too_much().await;
    }

    /// Which token this is.
    #[must_use]
    pub fn identity(&self) -> &TokenIdentity {
        self.module.identity()
    }

    /// The module's path.
    #[must_use]
    pub fn module_path(&self) -> &Path {
        &self.module_path
    }

    /// The algorithms this token can generate and sign with, found out at start.
    #[must_use]
    pub fn algorithms(&self) -> &[Algorithm] {
        self.module.algorithms()
    }

    /// Signs what `warrant` justifies. The signature is checked against the public key before
    /// anything else sees it, unless the configuration says otherwise.
    pub async fn sign(&self, key: &KeyRef, warrant: &impl Warrant) -> Result<VerifiedSignature, Error> {
        let input = key.public_key.algorithm().token_input(warrant.message()).into_owned();
        let (algorithm, object_id) = (key.public_key.algorithm(), key.object_id.clone());
        let raw = self.signing.call(self.deadline, move |session| session.sign(&object_id, algorithm, &input)).await?;
        VerifiedSignature::check(key, warrant.message(), &raw, self.verify_signatures)
    }

    /// Generates a key pair and its certificate, reads both back, and proves the key by a signature.
    pub async fn generate(&self, request: GenerateRequest) -> Result<GeneratedKey, Error> {
        let module = Arc::clone(&self.module);
        // Generation waits for the token's random source and, in software, for the disk.
        let deadline = self.deadline.max(Duration::from_secs(30));
        self.lifecycle.call(deadline, move |session| generate::generate(session, &module, &request)).await
    }

    /// What the token reports of a private key, checked against the policy for our keys.
    pub async fn key_attributes(&self, object_id: Vec<u8>) -> Result<KeyAttributes, Error> {
        self.asking.call(self.deadline, move |session| session.key_attributes(&object_id)).await
    }

    /// A PKCS#10 certificate request (RFC 2986) for a key, signed by it.
    pub async fn certificate_request(&self, key: &KeyRef, common_name: String) -> Result<Vec<u8>, Error> {
        let (public_key, object_id) = (key.public_key.clone(), key.object_id.clone());
        self.lifecycle
            .call(self.deadline, move |session| {
                certificate::request(&common_name, &public_key, |message| {
                    let algorithm = public_key.algorithm();
                    let raw = session.sign(&object_id, algorithm, &algorithm.token_input(message))?;
                    let signature = public_key.normalize(&raw).map_err(|_| Error::BadSignature)?;
                    public_key.verify(message, &signature).map_err(|_| Error::BadSignature)?;
                    Ok(signature)
                })
            })
            .await
    }

    /// Checks that a PEM chain is for a key, and stores it beside the key.
    pub async fn store_chain(&self, key: &KeyEntry, pem: &[u8], at: i64) -> Result<Result<(), InvalidChain>, Error> {
        let chain = match certificate::parse_chain(pem, &key.public_key) {
            Ok(chain) => chain,
            Err(invalid) => return Ok(Err(invalid)),
        };
        let (object_id, label) = (key.object_id.clone(), key.label.clone());
        self.lifecycle
            .call(self.deadline, move |session| session.store_chain(&object_id, &label, at, &chain))
            .await
            .map(Ok)
    }

    /// Whether attributes that the token reports are those our keys must have.
    pub fn check_attributes(&self, attributes: &KeyAttributes) -> Result<(), String> {
        attributes.check(self.module.omitted(), self.module.reports_local())
    }

    /// The certificates stored for a key, its own first.
    pub async fn certificates(&self, object_id: Vec<u8>) -> Result<Vec<Vec<u8>>, Error> {
        self.asking.call(self.deadline, move |session| session.certificates(&object_id)).await
    }

    /// Key objects on the token whose label begins with `prefix`.
    pub async fn key_objects(&self, prefix: String) -> Result<Vec<KeyObject>, Error> {
        self.asking.call(self.deadline, move |session| session.key_objects(&prefix)).await
    }

    /// Destroys a private key object; true when it was still there.
    pub async fn destroy_private_key(&self, object_id: Vec<u8>) -> Result<bool, Error> {
        self.lifecycle.call(self.deadline, move |session| session.destroy_private_key(&object_id)).await
    }

    /// Destroys what an unfinished generation left under this id, if its label begins with `prefix`.
    pub async fn destroy_leftovers(&self, object_id: Vec<u8>, prefix: String) -> Result<(), Error> {
        self.lifecycle.call(self.deadline, move |session| session.destroy_leftovers(&object_id, &prefix)).await
    }

    /// A random CKA_ID that no object on the token has.
    pub async fn unused_object_id(&self) -> Result<Vec<u8>, Error> {
        self.lifecycle.call(self.deadline, |session| session.exclusively(generate::unused_id)).await
    }

    /// Destroys one data object of ours.
    pub(crate) async fn destroy_data_object(&self, label: String) -> Result<(), Error> {
        self.ledger.call(self.deadline, move |session| session.destroy_data_object(&label)).await
    }

    /// Every data object of ours.
    pub(crate) async fn data_objects(&self) -> Result<Vec<StoredRecord>, Error> {
        let deadline = self.deadline.max(Duration::from_secs(10));
        self.reading.call(deadline, session::TokenSession::data_objects).await
    }

    /// Stores one data object of ours.
    pub(crate) async fn create_data_object(&self, record: StoredRecord) -> Result<(), Error> {
        let modifiable = self.module.omits(OptionalAttribute::Modifiable);
        // A record whose fate is unknown is worse than a slow one.
        let deadline = self.deadline.max(Duration::from_secs(30));
        self.ledger.call(deadline, move |session| session.create_data_object(&record, modifiable)).await
    }

    /// Whether the token answers: C_GetTokenInfo, which notices a token that has gone while
    /// C_FindObjects still says "nothing found".
    pub async fn ping(&self) -> Result<(), Error> {
        self.asking.call(self.deadline, session::TokenSession::check_presence).await
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the token could not be closed");
        }
    }
}
