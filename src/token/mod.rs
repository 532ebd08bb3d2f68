//! The token: the only room that knows PKCS#11. Keys are generated and used in it and nowhere else.
//!
//! One process-wide module context ([`module`]) holds the login. Lanes of worker threads
//! ([`lane`]) each own a session and a cache of object handles, behind a bounded queue with a
//! deadline for every call, so that nothing asynchronous ever waits inside PKCS#11.

mod certificate;
mod config;
mod error;
mod generate;
mod lane;
mod ledger;
mod mechanism;
mod module;
pub mod provision;
mod session;
mod template;
mod uri;
mod verified;

use std::{sync::Arc, time::Duration};

use secrecy::SecretString;

pub use config::{Config, PinSource};
pub use error::{CallError, Error, PinProblem};
pub use generate::{GenerateRequest, GeneratedKey};
pub use ledger::DataObjectLedger;
pub use module::TokenIdentity;
pub use template::{KeyAttributes, OptionalAttribute};
pub use uri::{InvalidUri, TokenUri};
pub use verified::{NotCovered, VerifiedSignature};

use crate::{
    evidence::Warrant,
    key::{Algorithm, KeyEntry, PublicKey, StoredRecord},
};
use lane::Lane;
use module::Module;

/// The application name of every data object that is ours (CKA_APPLICATION).
pub const APPLICATION: &str = "verification-signer";

/// How long a call in progress may hold up the end of the process.
const CLOSING: Duration = Duration::from_secs(5);

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

/// A logged-in token. Cheap to share behind an `Arc`; [`Token::close`] ends it for all.
pub struct Token {
    module: Arc<Module>,
    signing: Lane,
    lifecycle: Lane,
    deadline: Duration,
    verify_signatures: bool,
}

impl Token {
    /// Loads the module, finds the one token the URI names, logs in (once), starts the lanes.
    ///
    /// Blocking: call it before the server starts, or from a blocking thread.
    pub fn open(config: &Config, pin: &SecretString) -> Result<Self, Error> {
        let module = Arc::new(Module::open(config, pin)?);
        Ok(Self {
            signing: Lane::start("token-sign", config.workers, config.queue, &module)?,
            // One worker: key generation and ledger writes are serialised.
            lifecycle: Lane::start("token-lifecycle", 1, 64, &module)?,
            module,
            deadline: config.call_deadline,
            verify_signatures: config.verify_signatures,
        })
    }

    /// Ends the lanes, closes every session, and finalizes the module. Doing it twice is harmless.
    ///
    /// It must be done before the process ends: a worker that is still inside the module while
    /// `exit` takes the module's own data down crashes.
    pub fn close(&self) -> Result<(), Error> {
        let ended = [&self.signing, &self.lifecycle].map(|lane| lane.stop(CLOSING));
        // C_Finalize under a thread that hangs in a call would crash or hang as well.
        if ended == [true, true] { self.module.close() } else { Err(Error::Deadline(CLOSING)) }
    }

    /// Which token this is.
    #[must_use]
    pub fn identity(&self) -> &TokenIdentity {
        self.module.identity()
    }

    /// The algorithms this token can generate and sign with, found out at start.
    #[must_use]
    pub fn algorithms(&self) -> &[Algorithm] {
        self.module.algorithms()
    }

    /// Signs what `warrant` justifies. The signature is checked against the public key before
    /// anything else sees it, unless the configuration says otherwise.
    pub async fn sign<W: Warrant>(&self, key: &KeyRef, warrant: W) -> Result<VerifiedSignature<W>, Error> {
        let input = key.public_key.algorithm().token_input(warrant.message()).into_owned();
        let (algorithm, object_id) = (key.public_key.algorithm(), key.object_id.clone());
        let raw = self.signing.call(self.deadline, move |session| session.sign(&object_id, algorithm, &input)).await?;
        VerifiedSignature::check(key, warrant, &raw, self.verify_signatures)
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
        self.lifecycle.call(self.deadline, move |session| session.key_attributes(&object_id)).await
    }

    /// The certificate stored beside a key.
    pub async fn certificate(&self, object_id: Vec<u8>) -> Result<Option<Vec<u8>>, Error> {
        self.lifecycle.call(self.deadline, move |session| session.certificate(&object_id)).await
    }

    /// Labels of key objects on the token that begin with `prefix`.
    pub async fn key_labels(&self, prefix: String) -> Result<Vec<String>, Error> {
        self.lifecycle.call(self.deadline, move |session| session.key_labels(&prefix)).await
    }

    /// Every data object of ours.
    pub(crate) async fn data_objects(&self) -> Result<Vec<StoredRecord>, Error> {
        let deadline = self.deadline.max(Duration::from_secs(10));
        self.lifecycle.call(deadline, session::TokenSession::data_objects).await
    }

    /// Stores one data object of ours.
    pub(crate) async fn create_data_object(&self, record: StoredRecord) -> Result<(), Error> {
        let modifiable = self.module.omits(OptionalAttribute::Modifiable);
        self.lifecycle.call(self.deadline, move |session| session.create_data_object(&record, modifiable)).await
    }

    /// Whether the token answers: C_GetTokenInfo, which notices a token that has gone while
    /// C_FindObjects still says "nothing found".
    pub async fn ping(&self) -> Result<(), Error> {
        let module = Arc::clone(&self.module);
        self.lifecycle.call(self.deadline, move |_| module.check_presence()).await
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // Whoever wants to know how it went has called `close`.
        let _ = self.close();
    }
}
