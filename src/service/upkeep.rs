//! What happens without anyone asking: due rotations, warnings, a look at the active key. It looks
//! at states, never at edges, so that a machine that slept through a deadline catches up. Nothing
//! here decides whether a key signs: deadlines count at use.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    audit::{Event, EventType, Severity},
    key::{KeyEntry, KeyId, KeyState},
    service::{
        Error, Service,
        lifecycle::{Actor, Due, RotationOrder, due},
    },
    timestamp::Timestamp,
};

/// Remembers what has been said, so that a warning comes once a day and a record once.
#[derive(Default)]
pub struct Upkeep {
    warned_at: BTreeMap<KeyId, Timestamp>,
    recorded: Vec<(KeyId, KeyState)>,
    waiting: BTreeSet<KeyId>,
}

const DAY_SECONDS: i64 = 86_400;

impl Upkeep {
    /// One round. Failures are logged; the next round tries again.
    pub async fn run(&mut self, service: &Service) {
        if let Err(error) = service.do_what_is_due().await {
            tracing::warn!(%error, "automatic key upkeep failed");
        }
        self.say_waiting(service).await;
        if let Err(error) = self.warn(service).await {
            tracing::warn!(%error, "a key warning could not be recorded");
        }
        // For the gauges.
        drop(service.highest_scores(0));
        if let Err(error) = service.watch_attributes().await {
            tracing::warn!(%error, "the active key's attributes could not be read");
        }
    }

    async fn warn(&mut self, service: &Service) -> Result<(), Error> {
        let now = service.clock.now();
        let standing = service.keyring.standing();
        let mut recorded = Ok(());
        for key in standing.actives() {
            recorded = recorded.and(self.warn_of(key, now, service).await);
        }
        recorded
    }

    async fn warn_of(&mut self, key: &KeyEntry, now: Timestamp, service: &Service) -> Result<(), Error> {
        let state = key.state(now);
        let age = key.activated_at.map_or(0, |activated| now.seconds_since(activated));
        if state == KeyState::Active && age < service.policy.key.warn_age_seconds() {
            return Ok(());
        }
        let last = self.warned_at.get(&key.id);
        if last.is_none_or(|last| now.seconds_since(*last) >= DAY_SECONDS || now < *last) {
            self.warned_at.insert(key.id.clone(), now);
            tracing::warn!(key_id = %key.id, expires_at = %key.not_after, state = state.as_str(), "the active key must be rotated");
        }
        let once = (key.id.clone(), state);
        if self.recorded.contains(&once) {
            return Ok(());
        }
        let (kind, severity) = match state {
            KeyState::Expired => (EventType::KeyExpired, Severity::Critical),
            KeyState::Pending | KeyState::Active | KeyState::Rotating | KeyState::Retired | KeyState::Revoked => {
                (EventType::HealthCheck, Severity::Warning)
            }
        };
        let event = Event::of_service(kind, "warn", key.id.to_string(), now)
            .of_severity(severity)
            .detail("key_id", key.id.to_string())
            .detail("expires_at", key.not_after.to_string());
        service.audit.record(event).await?;
        self.recorded.push(once);
        Ok(())
    }

    /// Says once that a rotation is due which waits for its token.
    async fn say_waiting(&mut self, service: &Service) {
        for (name, key) in service.overdue().await {
            if self.waiting.insert(key.id.clone()) {
                tracing::warn!(key_id = %key.id, token = name, "its rotation is due, and waits for the token");
                let event = Event::of_service(
                    EventType::HealthCheck,
                    "rotation_waits",
                    key.id.to_string(),
                    service.clock.now(),
                )
                .of_severity(Severity::Warning)
                .detail("key_id", key.id.to_string())
                .detail("token", name);
                service.record_or_warn(event, "a rotation that waits").await;
            }
        }
    }
}

impl Service {
    /// Counts how often the process that holds the module has ended since `seen`; whether it has.
    pub fn count_token_losses(&self, seen: &mut u64) -> bool {
        let losses = self.token.losses().unwrap_or_default();
        self.metrics.token_process_restarts.inc_by(losses - *seen);
        std::mem::replace(seen, losses) != losses
    }

    /// Records that the token is lost (the ledger cannot be read any more, or the process that held it
    /// ended), or that it is back: once each.
    pub async fn note_token(&self, trouble: Option<&'static str>) {
        let (now, token) = (self.clock.now(), self.token.identity().uri().to_string());
        let event = match trouble {
            Some(reason) => Event::of_service(EventType::Error, "token_lost", token, now)
                .failed(Severity::Critical)
                .detail("reason", reason),
            None => Event::of_service(EventType::HealthCheck, "token_back", token, now),
        };
        self.record_or_warn(event, "the state of the token").await;
    }

    /// Records that this process ends because its token hangs.
    pub async fn note_stuck_token(&self) {
        let token = self.token.identity().uri().to_string();
        let event = Event::of_service(EventType::Error, "token_stuck", token, self.clock.now());
        self.record_or_warn(event.failed(Severity::Critical), "the end of this process").await;
    }

    /// Active keys whose rotation is due and whose token is away, with its name.
    pub(super) async fn overdue(&self) -> Vec<(String, Arc<KeyEntry>)> {
        let (standing, now) = (self.keyring.standing(), self.clock.now());
        let mut waiting = Vec::new();
        for (name, line) in self.tokens.homes() {
            let is_due = due(&standing, line, now, &self.policy.key) == Some(Due::Rotate);
            if is_due && self.home(line).await.is_err() {
                waiting.extend(standing.active(line).map(|key| (name.to_owned(), Arc::clone(key))));
            }
        }
        waiting
    }

    /// For each token by itself: what one of them cannot do now, it does when it is back.
    async fn do_what_is_due(&self) -> Result<(), Error> {
        let mut done = Ok(());
        for (name, line) in self.tokens.homes() {
            let Some(what) = due(&self.keyring.standing(), line, self.clock.now(), &self.policy.key) else { continue };
            if self.home(line).await.is_ok() {
                done = done.and(self.do_due(what, name).await);
            }
        }
        done
    }

    async fn do_due(&self, what: Due, token: &str) -> Result<(), Error> {
        let actor = Actor::program("automatic");
        match what {
            Due::Complete(rotation) => {
                self.complete(&rotation, false, &actor).await?;
                tracing::info!(rotation, "completed: its overlap has ended");
            }
            Due::Rotate => {
                let order = RotationOrder {
                    token: Some(token.to_owned()),
                    reason: "rotation".into(),
                    notes: "maximum age".into(),
                    ..RotationOrder::default()
                };
                let rotation = self.rotate(&order, &actor).await?;
                tracing::info!(new_key = rotation.to, "rotated: the active key had reached its age");
            }
        }
        Ok(())
    }
}
