//! The token alone: C_Sign in a loop, as fast as it goes, with a session key that leaves nothing behind
//! (PKCS#11 v3.1 §2.6.7). What everything else is measured against.

use std::{
    thread,
    time::{Duration, Instant},
};

use cryptoki::{context::Pkcs11, object::ObjectHandle, session::Session};

use super::{
    Config, Error, PinDesk, TokenIdentity, mechanism,
    module::{self, Connection},
};
use crate::key::Algorithm;

/// A logged-in token with a session key.
pub struct Bare {
    context: Pkcs11,
    connection: Connection,
    /// The key ends with it.
    owner: Session,
    key: ObjectHandle,
    identity: TokenIdentity,
}

impl Bare {
    /// Logs in, once, and makes the key.
    pub fn open(config: &Config, pins: &PinDesk) -> Result<Self, Error> {
        let context = module::load(&config.module)?;
        let (connection, identity) = module::connect(&context, &config.uri, pins)?;
        let owner = context.open_rw_session(connection.slot)?;
        let [public, private] = module::session_pair(Algorithm::P256);
        let (_, key) = owner.generate_key_pair(&mechanism::generation(Algorithm::P256), &public, &private)?;
        Ok(Self { context, connection, owner, key, identity })
    }

    /// Which token this is.
    #[must_use]
    pub fn identity(&self) -> &TokenIdentity {
        &self.identity
    }

    /// How long each signature took, by so many workers at once.
    pub fn sign_for(&self, time: Duration, workers: usize) -> Result<Vec<Duration>, Error> {
        let sessions: Result<Vec<_>, _> =
            (0..workers).map(|_| self.context.open_rw_session(self.connection.slot)).collect();
        let end = Instant::now() + time;
        let key = self.key;
        thread::scope(|scope| {
            let loops: Vec<_> = sessions?
                .into_iter()
                .map(|session| {
                    scope.spawn(move || {
                        let (mechanism, mut taken) = (mechanism::signing(Algorithm::P256), Vec::new());
                        while Instant::now() < end {
                            let begun = Instant::now();
                            session.sign(&mechanism, key, &[7; 32])?;
                            taken.push(begun.elapsed());
                        }
                        Ok(taken)
                    })
                })
                .collect();
            let mut all = Vec::new();
            for one in loops {
                let taken: Result<Vec<Duration>, Error> = one.join().expect("it does not panic");
                all.extend(taken?);
            }
            Ok(all)
        })
    }

    /// Logs out and finalizes the module: it can be loaded afresh.
    pub fn close(self) -> Result<(), Error> {
        drop(self.owner);
        drop(self.connection);
        Ok(self.context.finalize()?)
    }
}
