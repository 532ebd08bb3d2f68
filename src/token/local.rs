//! The token through a module in this process: the lanes, and which of them does what.

use std::{sync::Arc, time::Duration};

use cryptoki::session::Session;
use tokio::sync::oneshot;

use super::{
    Config, Error, KeyRef, OptionalAttribute, audit_key, certificate,
    crew::Calls,
    generate,
    lane::{Asker, Lane},
    module::Module,
    pin::GivesPin,
    session::TokenSession,
    verb::{Answer, Request},
};

/// How long a call in progress may hold up the end of the process.
pub(super) const CLOSING: Duration = Duration::from_secs(5);

/// The module, logged in, and the threads that work in it.
pub(super) struct Local {
    pub module: Arc<Module>,
    signing: Lane,
    lifecycle: Lane,
    ledger: Lane,
    reading: Lane,
    asking: Lane,
    deadline: Duration,
}

impl Local {
    /// Loads the module, finds the one token the URI names, logs in (once), starts the lanes.
    pub fn open(config: &Config, pins: Arc<dyn GivesPin>) -> Result<Self, Error> {
        let module = Arc::new(Module::open(config, pins)?);
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
        })
    }

    /// Does what is asked. The answer comes within the deadline or is [`Error::Deadline`].
    pub async fn perform(&self, request: Request) -> Result<Answer, Error> {
        let deadline = request.deadline(self.deadline);
        let (asker, answer) = oneshot::channel();
        self.begin(request, asker);
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            // The worker dropped the call unmade because its time had passed.
            Ok(Err(_)) | Err(_) => Err(Error::Deadline(deadline)),
        }
    }

    /// Has it done on the lane for it, and `asker` answered.
    pub fn begin(&self, request: Request, asker: impl Asker) {
        let deadline = request.deadline(self.deadline);
        match request {
            Request::Sign { object_id, algorithm, input } => {
                self.signing.call(deadline, asker, move |session| session.sign(&object_id, algorithm, &input));
            }
            Request::SignTreeHead { object_id, algorithm, input } => {
                self.asking.call(deadline, asker, move |session| session.sign(&object_id, algorithm, &input));
            }
            Request::Generate(request) => {
                let module = Arc::clone(&self.module);
                self.lifecycle.call(deadline, asker, move |session| generate::generate(session, &module, &request));
            }
            Request::KeyAttributes { object_id } => {
                self.asking.call(deadline, asker, move |session| session.key_attributes(&object_id));
            }
            Request::Pkcs10 { key, common_name } => {
                self.lifecycle.call(deadline, asker, move |session| certificate_request(session, &key, &common_name));
            }
            Request::StoreChain { object_id, label, at, chain } => {
                self.lifecycle
                    .call(deadline, asker, move |session| session.store_chain(&object_id, &label, at, &chain));
            }
            Request::Certificates { object_id } => {
                self.asking.call(deadline, asker, move |session| session.certificates(&object_id));
            }
            Request::KeyObjects { prefix } => {
                self.asking.call(deadline, asker, move |session| session.key_objects(&prefix));
            }
            Request::HeldKey { object_id, label, algorithm } => {
                self.asking.call(deadline, asker, move |session| session.held_key(&object_id, &label, algorithm));
            }
            Request::DestroyPrivateKey { object_id } => {
                self.lifecycle.call(deadline, asker, move |session| session.destroy_private_key(&object_id));
            }
            Request::DestroyLeftovers { object_id, prefix } => {
                self.lifecycle.call(deadline, asker, move |session| session.destroy_leftovers(&object_id, &prefix));
            }
            Request::UnusedObjectId => {
                self.lifecycle.call(deadline, asker, |session| session.exclusively(generate::unused_id));
            }
            Request::DestroyDataObject { label } => {
                self.ledger.call(deadline, asker, move |session| session.destroy_data_object(&label));
            }
            Request::DataObjects => self.reading.call(deadline, asker, TokenSession::data_objects),
            Request::CreateDataObject(record) => {
                let modifiable = self.module.omits(OptionalAttribute::Modifiable);
                self.ledger.call(deadline, asker, move |session| session.create_data_object(&record, modifiable));
            }
            Request::AuditKeys { prefix } => {
                let find = move |session: &Session| audit_key::find(session, &prefix);
                self.asking.call(deadline, asker, move |session| session.exclusively(find));
            }
            Request::GenerateAuditKey { prefix } => {
                let module = Arc::clone(&self.module);
                let make = move |session: &Session| audit_key::make(session, &module, &prefix);
                self.lifecycle.call(deadline, asker, move |session| session.exclusively(make));
            }
            Request::Ping => self.asking.call(deadline, asker, TokenSession::check_presence),
        }
    }

    /// Ends the lanes, closes every session, and finalizes the module. Doing it twice is harmless.
    ///
    /// It must be done before the process ends: a worker that is still inside the module while
    /// `exit` takes the module's own data down crashes.
    pub fn close(&self) -> Result<(), Error> {
        if self.module.hung().is_too_much() {
            return Err(Error::Deadline(self.deadline));
        }
        let ended =
            [&self.signing, &self.lifecycle, &self.ledger, &self.reading, &self.asking].map(|lane| lane.stop(CLOSING));
        // C_Finalize under a thread that hangs in a call would crash or hang as well.
        if ended == [true; 5] { self.module.close() } else { Err(Error::Deadline(CLOSING)) }
    }
}

impl Asker for oneshot::Sender<Result<Answer, Error>> {
    fn waits(&self) -> bool {
        !self.is_closed()
    }

    fn answer(self, answer: Result<Answer, Error>) {
        // It may have given up just now.
        let _ = self.send(answer);
    }
}

/// A PKCS#10 certificate request (RFC 2986), signed by the key.
fn certificate_request(session: &mut TokenSession, key: &KeyRef, common_name: &str) -> Result<Vec<u8>, Error> {
    certificate::request(common_name, &key.public_key, |message| {
        let algorithm = key.public_key.algorithm();
        let raw = session.sign(&key.object_id, algorithm, &algorithm.token_input(message))?;
        let signature = key.public_key.normalize(&raw).map_err(|_| Error::BadSignature)?;
        key.public_key.verify(message, &signature).map_err(|_| Error::BadSignature)?;
        Ok(signature)
    })
}
