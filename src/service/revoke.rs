//! Revocation that holds everywhere when the call returns, and the emergency as one call.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    audit::{Event, EventType, Intent, Severity},
    fleet::Memory,
    key::{
        KeyEntry, KeyId, Revocation, RevocationReason, Rotation, Standing,
        record::{VERSION, to_generalized_time},
        seen::Seen,
    },
    service::{
        Error, Service,
        lifecycle::{Actor, RotationOrder},
    },
    timestamp::Timestamp,
};

/// Within this time an emergency that names no key is a repetition of the one before it.
const EMERGENCY_REPEAT_SECONDS: i64 = 600;

/// A revocation that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct RevocationOrder {
    pub reason: RevocationReason,
    pub compromised_at: Option<Timestamp>,
}

/// A revocation that holds.
#[derive(Debug)]
pub struct RevocationDone {
    pub key: Arc<KeyEntry>,
    /// From the call to the moment since which no appliance signs with the key.
    pub time_to_safe: Duration,
    /// False when the key was revoked before this call.
    pub newly: bool,
    /// Appliances that have reported reading this revocation. The others, if any, have lost their
    /// lease all the same.
    pub confirmed_by: Vec<String>,
}

/// An emergency that is over.
#[derive(Debug)]
pub struct EmergencyDone {
    pub revocation: RevocationDone,
    pub active: Arc<KeyEntry>,
    pub rotation: Option<Rotation>,
}

impl Service {
    /// Revokes a key. **Commit point**: the revocation on the token. After it the call waits until
    /// every appliance's older view of the ledger has lost its lease. It takes no lock: nothing may
    /// stand in its way.
    pub async fn revoke(&self, key_id: &str, order: RevocationOrder, actor: &Actor) -> Result<RevocationDone, Error> {
        let begun = Instant::now();
        let (key, announced) = self.commit_revocation(key_id, order, actor).await?;
        self.settle(begun, key, announced, actor).await
    }

    async fn commit_revocation(
        &self,
        key_id: &str,
        order: RevocationOrder,
        actor: &Actor,
    ) -> Result<(Arc<KeyEntry>, Option<Intent>), Error> {
        let key = self.keyring.find_by_text_anew(key_id).await?;
        if key.revoked.is_some() {
            return Ok((key, None));
        }
        let now = self.clock.now();
        let event = actor
            .event(EventType::KeyRevoked, "revoke", &key.id.to_string(), now)
            .detail("key_id", key.id.to_string())
            .detail("reason", order.reason.as_str());
        // Dropped on any error from here on: then nobody knows, until the next reading of the ledger.
        let announced = self.audit.intend(event.of_severity(Severity::Critical)).await?;
        let revocation = Revocation {
            version: VERSION,
            signer: self.signer.id.as_str().to_owned(),
            key: key.id.sequence,
            time: to_generalized_time(now),
            reason: order.reason.to_string(),
            actor: actor.name.clone(),
            initiated_by: actor.initiated_by.clone(),
            compromised_at: order.compromised_at.map(to_generalized_time),
        };
        self.keyring.append_revocation(&revocation).await?;
        tracing::warn!(key_id = %key.id, reason = order.reason.as_str(), initiated_by = actor.initiated_by, "key revoked");
        Ok((self.keyring.find(&key.id)?, Some(announced)))
    }

    /// Waits until no older view of the ledger can sign any more, and records that it holds.
    async fn settle(
        &self,
        begun: Instant,
        key: Arc<KeyEntry>,
        announced: Option<Intent>,
        actor: &Actor,
    ) -> Result<RevocationDone, Error> {
        // A key that was revoked before may have been a moment ago, by someone else: wait all the same.
        tokio::time::sleep(self.policy.settle_time).await;
        let time_to_safe = begun.elapsed();
        let newly = announced.is_some();
        if let Some(announced) = announced {
            let event = actor
                .event(EventType::KeyRevoked, "revoke", &key.id.to_string(), self.clock.now())
                .detail("key_id", key.id.to_string())
                .detail("time_to_safe_seconds", time_to_safe.as_secs_f64());
            announced.conclude(event.of_severity(Severity::Critical)).await?;
        }
        Ok(RevocationDone { key, time_to_safe, newly, confirmed_by: self.members_that_know().await })
    }

    /// Goes on with a ledger that an operator accepted by name although it is not the one seen
    /// before. Keys that were revoked stay so: their revocations are put back on the token.
    pub async fn take_over_ledger(&self, remembered: &BTreeSet<String>) -> Result<(), Error> {
        let standing = self.keyring.standing();
        tracing::warn!(
            head = hex::encode(standing.head()),
            "an operator accepted a ledger that does not continue what was seen before"
        );
        let event =
            Event::of_service(EventType::SecurityAlert, "accept_ledger", self.signer.id.as_str(), self.clock.now())
                .of_severity(Severity::Critical)
                .detail("ledger_head", hex::encode(standing.head()));
        self.audit.record(event).await?;
        let lost = |key: &&Arc<KeyEntry>| remembered.contains(&key.public_key.fingerprint()) && key.revoked.is_none();
        let order = RevocationOrder { reason: RevocationReason::Administrative, compromised_at: None };
        let actor = Actor::program("start");
        for key in standing.keys().filter(lost) {
            let (key, announced) = self.commit_revocation(&key.id.to_string(), order, &actor).await?;
            if let Some(announced) = announced {
                let event = actor.event(EventType::KeyRevoked, "revoke", &key.id.to_string(), self.clock.now());
                announced.conclude(event.detail("key_id", key.id.to_string()).of_severity(Severity::Critical)).await?;
            }
        }
        self.keyring.end_acceptance();
        self.fleet.report(&Seen::of(&self.keyring.standing()), Memory::Anew).await?;
        Ok(())
    }

    /// Who has read as many revocations as this appliance. Empty when nobody can be asked: then the
    /// leases alone tell.
    async fn members_that_know(&self) -> Vec<String> {
        let seen = Seen::of(&self.keyring.standing());
        let known = seen.revoked.len() as u64;
        if let Err(error) = self.fleet.report(&seen, Memory::Further).await {
            tracing::warn!(%error, "the fleet was not told of a revocation; its members read it from the token");
        }
        let members = self.fleet.members().await.unwrap_or_default();
        let mut names: Vec<_> =
            members.into_iter().filter(|member| member.revocations >= known).map(|member| member.instance).collect();
        if !names.contains(&self.instance) {
            names.push(self.instance.clone());
        }
        names.sort();
        names
    }

    /// The key that an emergency without a name means: the primary's active one, unless that was itself made by
    /// an emergency a moment ago. Then the call is a repetition, and means the key before it.
    fn meant_by_emergency(&self, standing: &Standing) -> Option<String> {
        let line = self.tokens.line();
        let Some(active) = standing.active(line) else {
            // Nothing is active: a first try got as far as the revocation.
            let revoked = |key: &&Arc<KeyEntry>| key.line == *line && key.revoked.is_some();
            return standing.keys().rev().find(revoked).map(|key| key.id.to_string());
        };
        let answered = standing.rotation(active.id.sequence).filter(|rotation| {
            let age = self.clock.now().seconds_since(rotation.started_at);
            rotation.emergency && (0..EMERGENCY_REPEAT_SECONDS).contains(&age)
        });
        let before = answered
            .and_then(|rotation| rotation.from)
            .map(|sequence| KeyId { signer: active.id.signer.clone(), sequence });
        match before.and_then(|id| standing.key(&id)).filter(|key| key.revoked.is_some()) {
            Some(revoked) => Some(revoked.id.to_string()),
            None => Some(active.id.to_string()),
        }
    }

    /// Revokes (the primary's active key, unless another is named), generates and activates a successor on the same
    /// token. Called again after
    /// a crash or a lost answer, it does what is still to be done.
    pub async fn emergency(
        &self,
        key_id: Option<&str>,
        order: RevocationOrder,
        notes: &str,
        actor: &Actor,
    ) -> Result<EmergencyDone, Error> {
        let begun = Instant::now();
        let standing = self.keyring.refresh().await?;
        let named = match key_id {
            Some(id) => id.to_owned(),
            None => self.meant_by_emergency(&standing).ok_or(Error::NoActiveKey)?,
        };
        let (key, announced) = self.commit_revocation(&named, order, actor).await?;
        let rotation = match self.keyring.standing().active(&key.line) {
            Some(_) => None,
            None => {
                let order = RotationOrder {
                    token: Some(self.name_of(&key.line).ok_or_else(|| self.away(&key.line))?.to_owned()),
                    reason: order.reason.to_string(),
                    notes: notes.to_owned(),
                    emergency: true,
                    ..RotationOrder::default()
                };
                Some(self.rotate(&order, actor).await?)
            }
        };
        let revocation = self.settle(begun, key, announced, actor).await?;
        let active = self.keyring.standing().active(&revocation.key.line).cloned().ok_or(Error::NoActiveKey)?;
        Ok(EmergencyDone { revocation, active, rotation })
    }
}
