//! The end of every signing: signed and verified → recorded (on disk) → released. A signature leaves
//! through here or not at all.

use std::sync::Arc;

use crate::{
    audit::Event,
    evidence::Warrant,
    key::{KeyEntry, Signature},
    service::{Error, Service, standby::signed_on},
    timestamp::Timestamp,
    token::{
        KeyRef, Token,
        standby::{Signed, Turns},
    },
};

/// What a key is used for, and so which keys may.
pub(super) enum Usage<'a> {
    /// Signing something new: the active key only, of the token whose turn it is.
    Sign(&'a mut Turns),
    /// Proving that it is there, on the token that has it: every key that was not revoked or destroyed.
    Prove(&'a Token, &'a Arc<KeyEntry>),
}

impl Usage<'_> {
    fn key(&self) -> Result<Arc<KeyEntry>, Error> {
        match self {
            Self::Sign(turns) => turns.key().cloned().ok_or(Error::NoActiveKey),
            Self::Prove(_, key) => Ok(Arc::clone(key)),
        }
    }
}

/// A signature that may leave.
pub(super) struct Released {
    pub signature: Signature,
    /// When it was made.
    pub created: Timestamp,
    /// Of the first thing that it covers; the others follow in order.
    pub audit_sequence: u64,
}

impl Service {
    /// Has the token sign, puts the signature on record, and releases it. `event` makes the record.
    pub(super) async fn sign_and_release(
        &self,
        usage: Usage<'_>,
        warrant: &impl Warrant,
        event: impl FnOnce(Timestamp) -> Event,
    ) -> Result<Released, Error> {
        self.sign_and_release_all(usage, warrant, |now| vec![event(now)]).await
    }

    /// The same of a signature that covers several things: `events` makes a record of each, as soon as the token
    /// has signed.
    pub(super) async fn sign_and_release_all(
        &self,
        usage: Usage<'_>,
        warrant: &impl Warrant,
        events: impl FnOnce(Timestamp) -> Vec<Event>,
    ) -> Result<Released, Error> {
        self.audit.trouble()?;
        let key = usage.key()?;
        let is_new = matches!(usage, Usage::Sign(_));
        let Signed { signature: verified, on } = match usage {
            Usage::Sign(turns) => self.tokens.sign(turns, warrant).await?,
            Usage::Prove(token, key) => {
                Signed { signature: token.sign(&KeyRef::from(&**key), warrant).await?, on: None }
            }
        };
        let created = self.clock.now();
        if is_new { self.keyring.still_active(&key.id, created) } else { self.keyring.may_release(&key.id, created) }?;
        let mut events: Vec<_> = events(created).into_iter().map(|event| signed_on(event, on.as_ref())).collect();
        let recorded = self.audit.record_signature(&mut events, verified.digest()).await?;
        // The key's standing once more, since the disk may have taken its time: a key that was
        // revoked meanwhile releases nothing, and the record is followed by one that says so.
        if let Err(error) = self.keyring.may_release(&key.id, self.clock.now()) {
            let now = self.clock.now();
            let discarded = events.into_iter().zip(recorded.sequence()..);
            let discarded = discarded.map(|(event, sequence)| event.discarded(sequence, now));
            let discarded: Vec<_> = discarded.map(|event| event.detail("reason", error.kind())).collect();
            self.audit.record_all(&discarded).await?;
            return Err(error);
        }
        let signature = verified.release(&recorded).map_err(|_| Error::Internal("a receipt for another signature"))?;
        Ok(Released { signature, created, audit_sequence: recorded.sequence() })
    }

    /// Who signs after `refusal` of `key`: a rotation between the choice of a key and its signature is no caller's
    /// affair, nor is a token that cannot sign while another can, with a key of its own.
    pub(super) fn taken_over(&self, turns: &mut Turns, key: &KeyEntry, refusal: Error) -> Result<(), Error> {
        match refusal {
            Error::KeyMayNotSign { .. } | Error::NoActiveKey => *turns = self.turns()?,
            Error::Token(_) if turns.key().is_some() => return Ok(()),
            other => return Err(other),
        }
        if turns.key().is_some_and(|next| next.id != key.id) { Ok(()) } else { Err(refusal) }
    }
}
