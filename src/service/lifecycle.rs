//! What operators do with keys: rotate, complete, cancel, revoke, generate ahead, destroy. Where tokens have keys of
//! their own, each of them by itself ([`super::homes`]).
//!
//! Every operation has one **commit point**: a record on the token. Before it, a crash or failure
//! leaves the old state (and leftovers that [`super::janitor`] cleans up); after it, the new state
//! holds on every appliance that reads the ledger, whatever happens to this process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use der::asn1::OctetString;

use crate::{
    attestation::InvalidField,
    audit::{self, Event as AuditEvent, EventType, Severity},
    fleet::{self, Guard},
    key::{
        Algorithm, Event, KeyEntry, KeyId, KeyState, Line, Rotation, RotationStatus, Standing,
        intent::GenerationIntent,
        record::{KeyActivated, KeyDestroyed, KeyGenerated, RotationCancelled, RotationCompleted, to_generalized_time},
    },
    service::{Error, KeyPolicy, Service, homes::Home, opaque::OpaqueOrder},
    timestamp::Timestamp,
    token::{GenerateRequest, KeyRef, Token},
};

/// Who acts: the authenticated identity for the record, and the audit event's beginning.
#[derive(Clone, Debug)]
pub struct Actor {
    pub name: String,
    /// Whom the request names; recorded, never trusted.
    pub initiated_by: String,
    pub client: Option<crate::client::Client>,
}

impl Actor {
    /// This program itself, for what it does on schedule or at start.
    #[must_use]
    pub fn program(name: &str) -> Self {
        Self { name: name.to_owned(), initiated_by: name.to_owned(), client: None }
    }

    /// An event, as something this actor asked for.
    pub(super) fn asked(&self, event: AuditEvent) -> AuditEvent {
        match &self.client {
            Some(client) => event.asked_by(client),
            None => event.by(&self.name),
        }
    }

    pub(super) fn event(&self, kind: EventType, action: &'static str, resource: &str, now: Timestamp) -> AuditEvent {
        let event = match &self.client {
            Some(client) => AuditEvent::of_client(kind, action, resource, client, now),
            None => AuditEvent::of_service(kind, action, resource, now).by(&self.name),
        };
        event.detail("initiated_by", self.initiated_by.clone())
    }
}

/// A change of the keys in the making: the lock, the token whose keys they are, and the standing on which it is
/// decided.
pub(super) struct Change {
    guard: Guard,
    home: Home,
    decided: Arc<Standing>,
}

/// A rotation that is wanted.
#[derive(Clone, Debug, Default)]
pub struct RotationOrder {
    /// The token whose key is rotated, by name; left out, the primary.
    pub token: Option<String>,
    pub reason: String,
    pub notes: String,
    pub emergency: bool,
    pub overlap_seconds: Option<u64>,
    pub algorithm: Option<Algorithm>,
}

/// One line of the checklist before a rotation.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Check {
    pub item: &'static str,
    pub ok: bool,
    pub detail: String,
}

impl Service {
    /// Takes the fleet lock, brings the ledger up to date, and cleans up after crashes.
    pub(super) async fn begin_change(&self, line: &Line) -> Result<Change, Error> {
        let home = self.home(line).await?;
        let fence = self.keyring.standing().fence();
        let guard = self.fleet.acquire(fence).await?;
        self.clean_up_generations(&guard, &home).await?;
        Ok(Change { guard, home, decided: self.keyring.standing() })
    }

    /// Writes what was decided. When the call was given up and not ended, the lock lingers: the record may
    /// still be written, and nobody must decide anew before it has been. A call that ended with an error
    /// has written it or not: whoever decides next reads which.
    async fn commit(&self, change: &mut Change, event: Event, actor: &Actor, now: Timestamp) -> Result<(), Error> {
        match self.keyring.append(&change.decided, event, change.guard.fence(), &actor.name, now).await {
            Ok(standing) => {
                change.decided = standing;
                Ok(())
            }
            Err(error) => {
                if error.may_still_happen() {
                    change.guard.linger();
                }
                Err(error)
            }
        }
    }

    /// The runbook's checklist. Nothing is changed.
    pub async fn preflight(&self, order: &RotationOrder) -> Result<Vec<Check>, Error> {
        self.overlap(order)?;
        let line = self.line_named(order.token.as_deref())?;
        let now = self.clock.now();
        let standing = self.keyring.refresh().await;
        let token = self.reach(&line).await;
        let nonces = self.nonces.ping().await;
        let algorithm = order.algorithm.unwrap_or(self.policy.key.algorithm);
        let in_progress =
            standing.as_ref().ok().and_then(|standing| standing.rotation_in_progress(&line, now).cloned());
        let offered = token.as_ref().is_ok_and(|token| token.algorithms().contains(&algorithm));
        let mut checks = vec![
            Check {
                item: "token_reachable",
                ok: token.is_ok(),
                detail: token.map_or_else(|why| why, |token| token.identity().uri().to_string()),
            },
            Check {
                item: "token_offers_algorithm",
                ok: offered,
                detail: format!("{algorithm}{}", if offered { "" } else { " is not offered" }),
            },
            Check {
                item: "ledger_readable",
                ok: standing.is_ok(),
                detail: standing
                    .as_ref()
                    .map_or_else(ToString::to_string, |s| format!("{} records", s.last_sequence())),
            },
            Check {
                item: "no_rotation_in_progress",
                ok: in_progress.is_none() || order.emergency,
                detail: in_progress
                    .map_or_else(|| "none".into(), |r| format!("{} until {}", rotation_id(&r), r.overlap_until)),
            },
            Check {
                item: "nonce_store_reachable",
                ok: nonces.is_ok() || order.emergency,
                detail: self.nonces.describe(),
            },
            Check {
                item: "successor",
                ok: true,
                detail: standing
                    .as_ref()
                    .map_or_else(|_| String::new(), |s| self.successor_detail(s, &line, algorithm, now)),
            },
            Check {
                item: "audit_writable",
                ok: !matches!(self.audit.trouble(), Err(audit::Error::Stopped(stop)) if stop != audit::Stop::DiskFull),
                detail: self.audit.trouble().map_or_else(|trouble| trouble.to_string(), |()| String::new()),
            },
        ];
        if let (Line::Token(_), Ok(standing)) = (&line, &standing) {
            checks.push(self.first_key_check(standing, &line));
        }
        Ok(checks)
    }

    async fn reach(&self, line: &Line) -> Result<Arc<Token>, String> {
        let token = self.token_with(line).map_err(|error| error.to_string())?;
        let answered = token.ping().await;
        answered.map(|()| Arc::clone(&token)).map_err(|_| token.identity().uri().to_string())
    }

    /// A token gets its first own key where that is asked for by its serial, and not by a rotation.
    fn first_key_check(&self, standing: &Standing, line: &Line) -> Check {
        let ok = standing.has(line);
        let name = self.name_of(line).unwrap_or_default();
        let says = "has no key of its own yet: run `verification-signer init`, or set first_key_on_token_serial";
        Check { item: "first_key", ok, detail: if ok { String::new() } else { format!("{name} {says}") } }
    }

    /// Which key the rotation would activate, and whether verifiers have had notice of it.
    fn successor_detail(&self, standing: &Standing, line: &Line, algorithm: Algorithm, now: Timestamp) -> String {
        match standing.pending(line, now).find(|key| key.algorithm() == algorithm) {
            None => "a new key will be generated".into(),
            Some(key) if now.seconds_since(key.generated_at) < self.policy.key.minimum_notice_seconds() => {
                format!("pending key {}, published for less than the minimum notice", key.id)
            }
            Some(key) => format!("pending key {}", key.id),
        }
    }

    /// Makes a new key the active one; the one before it rotates out. **Commit point**: the
    /// `key-activated` record.
    pub async fn rotate(&self, order: &RotationOrder, actor: &Actor) -> Result<Rotation, Error> {
        let overlap = self.overlap(order)?;
        let line = self.line_named(order.token.as_deref())?;
        let change = self.begin_change(&line).await?;
        if let Some(broken) = self.preflight(order).await?.into_iter().find(|check| !check.ok) {
            let Some(rotation) = self
                .keyring
                .standing()
                .rotation_in_progress(&line, self.clock.now())
                .filter(|_| !order.emergency)
                .map(rotation_id)
            else {
                return Err(Error::Preflight { item: broken.item, detail: broken.detail });
            };
            return Err(Error::RotationInProgress { rotation });
        }
        let event = actor
            .event(EventType::KeyRotated, "rotate", self.signer.id.as_str(), self.clock.now())
            .detail("reason", order.reason.clone());
        self.on_record(event, Box::pin(self.activate_successor(order, overlap, actor, change)), |rotation| {
            self.activation_event(rotation, actor)
        })
        .await
    }

    /// Up to the commit point of a rotation, and past it.
    async fn activate_successor(
        &self,
        order: &RotationOrder,
        overlap: i64,
        actor: &Actor,
        mut change: Change,
    ) -> Result<Rotation, Error> {
        let key = self.successor(order.algorithm, actor, &mut change).await?;
        self.prove(&key, &change.home).await?;
        let now = self.clock.now().truncated_to_seconds();
        let activated = KeyActivated {
            key: key.id.sequence,
            // A key that was revoked, or none, leaves nothing to overlap with.
            overlap_until: to_generalized_time(match change.decided.active(&change.home.line) {
                Some(_) if !order.emergency => now.plus_seconds(overlap),
                Some(_) | None => now,
            }),
            emergency: order.emergency,
            reason: order.reason.clone(),
            initiated_by: actor.initiated_by.clone(),
            notes: order.notes.clone(),
        };
        self.commit(&mut change, Event::KeyActivated(activated), actor, now).await?;
        let standing = Arc::clone(&change.decided);
        drop(change);
        self.metrics.key_rotations.inc();
        tracing::info!(key_id = %key.id, reason = order.reason, initiated_by = actor.initiated_by, "rotated");
        let rotation = standing.rotation(key.id.sequence).cloned();
        Ok(rotation.unwrap_or_else(|| first_activation(&key, now, order, actor)))
    }

    fn activation_event(&self, rotation: &Rotation, actor: &Actor) -> AuditEvent {
        let id = |sequence: u32| KeyId { signer: self.signer.id.clone(), sequence }.to_string();
        actor
            .event(EventType::KeyRotated, "rotate", &rotation_id(rotation), self.clock.now())
            .detail("new_key_id", id(rotation.to))
            .detail("key_id", id(rotation.to))
            .detail("old_key_id", rotation.from.map(id))
            .detail("overlap_until", rotation.overlap_until.to_string())
            .detail("emergency", rotation.emergency)
            .detail("reason", rotation.reason.clone())
    }

    /// The pending key that was generated first, or a new one.
    async fn successor(
        &self,
        algorithm: Option<Algorithm>,
        actor: &Actor,
        change: &mut Change,
    ) -> Result<Arc<KeyEntry>, Error> {
        let wanted = algorithm.unwrap_or(self.policy.key.algorithm);
        let ready =
            change.decided.pending(&change.home.line, self.clock.now()).find(|key| key.algorithm() == wanted).cloned();
        match ready {
            Some(key) => Ok(key),
            None => self.generate(wanted, actor, change).await,
        }
    }

    /// Whether the token signs with this key: asked before it becomes the active one. A standby signs with it from
    /// that moment on.
    async fn prove(&self, key: &KeyEntry, home: &Home) -> Result<(), Error> {
        let canary = OpaqueOrder::canary("activation");
        // Now, whatever it has shown a while ago.
        home.token.sign(&KeyRef::from(key), &canary).await?;
        if let Some(standby) = self.tokens.standby_with(&home.line) {
            standby.prove(&home.token, key, &canary).await?;
        }
        Ok(())
    }

    /// Generates a key ahead of time. It stays pending until a rotation activates it.
    pub async fn generate_pending(
        &self,
        token: Option<&str>,
        algorithm: Option<Algorithm>,
        actor: &Actor,
    ) -> Result<Arc<KeyEntry>, Error> {
        let line = self.line_named(token)?;
        let mut change = self.begin_change(&line).await?;
        if let Line::Token(_) = line
            && let Check { item, ok: false, detail } = self.first_key_check(&change.decided, &line)
        {
            return Err(Error::Preflight { item, detail });
        }
        let pending = change.decided.pending(&line, self.clock.now()).count();
        if pending >= self.policy.key.maximum_pending {
            return Err(Error::TooManyPending { limit: self.policy.key.maximum_pending });
        }
        self.generate(algorithm.unwrap_or(self.policy.key.algorithm), actor, &mut change).await
    }

    /// Generates a key pair inside the token. **Commit point**: the `key-generated` record. The
    /// intent before it lets a janitor tell what a crash left behind.
    async fn generate(&self, algorithm: Algorithm, actor: &Actor, change: &mut Change) -> Result<Arc<KeyEntry>, Error> {
        let now = self.clock.now().truncated_to_seconds();
        let id = KeyId { signer: self.signer.id.clone(), sequence: change.decided.next_key_sequence() };
        let object_id = change.home.token.unused_object_id().await?;
        let event = actor
            .event(EventType::KeyGenerated, "generate", &id.to_string(), now)
            .detail("key_id", id.to_string())
            .detail("object_id", hex::encode(&object_id))
            .detail("algorithm", algorithm.as_str());
        let work = Box::pin(self.generate_pair(&id, object_id, algorithm, actor, change));
        self.on_record(event.clone(), work, |()| event).await?;
        self.keyring.find(&id)
    }

    async fn generate_pair(
        &self,
        id: &KeyId,
        object_id: Vec<u8>,
        algorithm: Algorithm,
        actor: &Actor,
        change: &mut Change,
    ) -> Result<(), Error> {
        let now = self.clock.now().truncated_to_seconds();
        let intent = GenerationIntent::new(
            self.signer.id.as_str(),
            &change.home.line,
            octets(object_id.clone()),
            to_generalized_time(now),
            &actor.name,
        );
        self.keyring.append_intent(&intent).await?;
        let not_after = now.plus_seconds(self.policy.key.maximum_age_seconds());
        let request = GenerateRequest { id: id.clone(), object_id, algorithm, not_before: now, not_after };
        let generated = match change.home.token.generate(request).await {
            Ok(generated) => generated,
            Err(error) => {
                let error = Error::from(error);
                if error.may_still_happen() {
                    change.guard.linger();
                }
                return Err(error);
            }
        };
        let record = KeyGenerated {
            key: id.sequence,
            object_id: octets(generated.object_id),
            label: generated.label,
            curve: algorithm.curve_oid(),
            public_key: octets(generated.public_key.to_spki_der()),
            not_before: to_generalized_time(now),
            not_after: to_generalized_time(not_after),
            token_serial: change.home.token.identity().serial.clone(),
            omitted: generated.omitted,
            own_line: change.home.line.serial().is_some(),
        };
        self.commit(change, Event::KeyGenerated(record), actor, now).await?;
        self.keyring.remove_intent(&intent).await
    }

    /// Makes the first key of an empty line, or finishes making it after a crash.
    pub async fn make_first_key(&self, line: &Line, actor: &Actor) -> Result<KeyId, Error> {
        let mut change = self.wait_to_change(line).await?;
        let was_active = |key: &&Arc<KeyEntry>| key.line == *line && key.activated_at.is_some();
        if let Some(key) = change.decided.keys().find(was_active) {
            // Another appliance was faster: its key is ours.
            return Ok(key.id.clone());
        }
        let key = self.successor(None, actor, &mut change).await?;
        let now = self.clock.now().truncated_to_seconds();
        let event = actor
            .event(EventType::KeyActivated, "activate", &key.id.to_string(), now)
            .detail("key_id", key.id.to_string());
        let work = self.activate_first(&key, actor, change, now);
        self.on_record(event.clone(), work, |()| event).await?;
        Ok(key.id.clone())
    }

    async fn activate_first(
        &self,
        key: &KeyEntry,
        actor: &Actor,
        mut change: Change,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.prove(key, &change.home).await?;
        let activated = KeyActivated {
            key: key.id.sequence,
            overlap_until: to_generalized_time(now),
            emergency: false,
            reason: "first key".into(),
            initiated_by: actor.initiated_by.clone(),
            notes: String::new(),
        };
        self.commit(&mut change, Event::KeyActivated(activated), actor, now).await?;
        change.guard.release().await;
        Ok(())
    }

    /// Takes the fleet lock, waiting for whoever has it: at a first start that is an appliance
    /// which makes the very key that is wanted, or one that died over it.
    pub(super) async fn wait_to_change(&self, line: &Line) -> Result<Change, Error> {
        const PATIENCE: Duration = fleet::LOCK_LIFE.saturating_add(Duration::from_secs(10));
        const PAUSE: Duration = Duration::from_millis(50);
        let begun = Instant::now();
        loop {
            match self.begin_change(line).await {
                Err(Error::ChangeInProgress) if begun.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
                done => return done,
            }
        }
    }

    /// Ends a rotation's overlap: after its deadline, or before it by force. Done already is done.
    /// **Commit point**: the `rotation-completed` record.
    pub async fn complete(&self, id: &str, force: bool, actor: &Actor) -> Result<Rotation, Error> {
        let mut change = self.begin_change(&self.line_of_rotation(id).await?).await?;
        let now = self.clock.now();
        let rotation = self.rotation(id)?;
        match rotation.status(now) {
            RotationStatus::Completed => return Ok(rotation),
            RotationStatus::Cancelled => {
                return Err(Error::RotationEnded { rotation: rotation_id(&rotation), status: "cancelled" });
            }
            RotationStatus::InProgress if !force => {
                return Err(Error::OverlapRunning { rotation: rotation_id(&rotation), until: rotation.overlap_until });
            }
            RotationStatus::InProgress | RotationStatus::OverlapEnded => {}
        }
        let forced = rotation.status(now) == RotationStatus::InProgress;
        let event = actor
            .event(EventType::KeyRotationCompleted, "complete", &rotation_id(&rotation), now)
            .detail("forced", forced)
            .detail("key_id", KeyId { signer: self.signer.id.clone(), sequence: rotation.to }.to_string());
        let completed = Event::RotationCompleted(RotationCompleted { key: rotation.to, forced });
        let work = self.commit(&mut change, completed, actor, now);
        self.on_record(event.clone(), work, |()| event).await?;
        tracing::info!(
            rotation = rotation_id(&rotation),
            forced,
            initiated_by = actor.initiated_by,
            "rotation completed"
        );
        change.decided.rotation(rotation.to).cloned().ok_or(Error::Internal("a completed rotation is gone"))
    }

    /// Takes a rotation back while its overlap runs: the old key is active again. **Commit point**:
    /// the `rotation-cancelled` record.
    pub async fn cancel(&self, id: &str, actor: &Actor) -> Result<Rotation, Error> {
        let mut change = self.begin_change(&self.line_of_rotation(id).await?).await?;
        let now = self.clock.now();
        let rotation = self.rotation(id)?;
        let is_newest = change.decided.active(&rotation.line).is_some_and(|active| active.id.sequence == rotation.to);
        if rotation.status(now) != RotationStatus::InProgress || !is_newest {
            return Err(Error::RotationEnded {
                rotation: rotation_id(&rotation),
                status: "not in progress, or not the newest",
            });
        }
        let old = rotation
            .from
            .map(|sequence| self.keyring.find(&KeyId { signer: self.signer.id.clone(), sequence }))
            .transpose()?;
        if let Some(old) = old.filter(|old| old.state(now) != KeyState::Rotating) {
            let (rotation, old, state) = (rotation_id(&rotation), old.id.clone(), old.state(now));
            return Err(Error::CannotGoBack { rotation, old, state });
        }
        let event = actor.event(EventType::KeyRotated, "cancel", &rotation_id(&rotation), now);
        let cancelled = Event::RotationCancelled(RotationCancelled { key: rotation.to });
        let work = self.commit(&mut change, cancelled, actor, now);
        self.on_record(event.clone(), work, |()| event).await?;
        tracing::warn!(rotation = rotation_id(&rotation), initiated_by = actor.initiated_by, "rotation cancelled");
        change.decided.rotation(rotation.to).cloned().ok_or(Error::Internal("a cancelled rotation is gone"))
    }

    /// Destroys the private key of a retired or revoked key, for good. **Commit point**: the object
    /// is gone from the token; the record says so, and a repeated call writes it if a crash did not.
    pub async fn destroy(&self, key_id: &str, force: bool, actor: &Actor) -> Result<Arc<KeyEntry>, Error> {
        let mut change = self.begin_change(&self.keyring.find_by_text_anew(key_id).await?.line).await?;
        let now = self.clock.now();
        let key = self.keyring.find_by_text(key_id)?;
        if key.destroyed_at.is_some() {
            return Ok(key);
        }
        let Some(ended) = key.ended_at(now) else {
            return Err(Error::KeyMayStillSign { id: key.id.clone(), state: key.state(now) });
        };
        let earliest = ended.plus_seconds(self.policy.key.retention_seconds());
        if now < earliest && !force {
            return Err(Error::RetentionRunning { id: key.id.clone(), until: earliest });
        }
        let event = actor
            .event(EventType::KeyAccessed, "destroy", &key.id.to_string(), now)
            .detail("key_id", key.id.to_string())
            .of_severity(Severity::Warning);
        let work = async {
            change.home.token.destroy_private_key(key.object_id.clone()).await?;
            let destroyed = Event::KeyDestroyed(KeyDestroyed { key: key.id.sequence });
            self.commit(&mut change, destroyed, actor, now).await
        };
        self.on_record(event.clone(), work, |()| event).await?;
        tracing::warn!(key_id = %key.id, initiated_by = actor.initiated_by, "private key destroyed");
        // A standby that is away is swept when it is back.
        self.look_at_standbys().await;
        self.keyring.find(&key.id)
    }

    /// The line of a rotation, which may be younger than the last reading.
    async fn line_of_rotation(&self, id: &str) -> Result<Line, Error> {
        if let Ok(rotation) = self.rotation(id) {
            return Ok(rotation.line);
        }
        self.keyring.refresh().await?;
        Ok(self.rotation(id)?.line)
    }

    /// A rotation by its id.
    pub fn rotation(&self, id: &str) -> Result<Rotation, Error> {
        let unknown = || Error::UnknownRotation(id.chars().take(100).collect());
        let sequence: u32 = id.strip_prefix(ROTATION_PREFIX).and_then(|text| text.parse().ok()).ok_or_else(unknown)?;
        self.keyring
            .standing()
            .rotation(sequence)
            .filter(|rotation| rotation_id(rotation) == id)
            .cloned()
            .ok_or_else(unknown)
    }

    fn overlap(&self, order: &RotationOrder) -> Result<i64, Error> {
        let maximum = u64::try_from(self.policy.key.maximum_age_seconds()).unwrap_or(0);
        match order.overlap_seconds {
            None => Ok(self.policy.key.overlap_seconds()),
            Some(seconds) if seconds < maximum => Ok(i64::try_from(seconds).unwrap_or(0)),
            Some(_) => {
                Err(InvalidField { field: "overlap_seconds", detail: "must be less than the maximum key age" }.into())
            }
        }
    }
}

const ROTATION_PREFIX: &str = "rotation-";

/// `rotation-<sequence of the new key>`
#[must_use]
pub fn rotation_id(rotation: &Rotation) -> String {
    format!("{ROTATION_PREFIX}{}", rotation.to)
}

/// A rotation on a ledger without any key that was ever active: making the first key.
fn first_activation(key: &KeyEntry, now: Timestamp, order: &RotationOrder, actor: &Actor) -> Rotation {
    Rotation {
        line: key.line.clone(),
        to: key.id.sequence,
        from: None,
        started_at: now,
        overlap_until: now,
        emergency: order.emergency,
        reason: order.reason.clone(),
        initiated_by: actor.initiated_by.clone(),
        notes: order.notes.clone(),
        completed_at: Some(now),
        cancelled_at: None,
        forced: false,
    }
}

fn octets(bytes: Vec<u8>) -> OctetString {
    OctetString::new(bytes).expect("far below DER's length limits")
}

/// What is due without anyone asking.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    Rotate,
    Complete(String),
}

/// What automatic operation wants done with the keys of a line at `now`. Looks at states, not at timers.
#[must_use]
pub fn due(standing: &Standing, line: &Line, now: Timestamp, policy: &KeyPolicy) -> Option<Due> {
    let mut rotations = standing.rotations().rev().filter(|rotation| rotation.line == *line);
    let ended = rotations.find(|rotation| rotation.status(now) == RotationStatus::OverlapEnded);
    if let Some(rotation) = ended.filter(|_| policy.complete_automatically) {
        return Some(Due::Complete(rotation_id(rotation)));
    }
    let age = standing.active(line).and_then(|key| key.activated_at).map(|activated| now.seconds_since(activated));
    let old_enough = age.zip(policy.rotate_at_seconds()).is_some_and(|(age, limit)| age >= limit);
    (old_enough && standing.rotation_in_progress(line, now).is_none()).then_some(Due::Rotate)
}
