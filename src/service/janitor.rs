//! Leftovers of a generation that a crash cut short: found, reported, destroyed by rule, on record.
//!
//! The rule: key objects whose CKA_ID an *intent* on the token names and no ledger record does. They
//! never had a record, so nothing they signed was ever released. Objects that no intent names are
//! left alone, whatever the ledger says: their records may only be invisible, or lost.

use crate::{
    audit::{Event as AuditEvent, EventType, Severity},
    fleet::Guard,
    key::{Standing, intent::GenerationIntent},
    service::{Error, Service, homes::Home},
    token::KeyObject,
};

/// Key objects that neither a record nor an intent names.
#[must_use]
pub fn unexplained<'a>(standing: &Standing, objects: &'a [KeyObject]) -> Vec<&'a KeyObject> {
    objects
        .iter()
        .filter(|object| !is_recorded(standing, &object.object_id))
        .filter(|object| !standing.intents().iter().any(|intent| intent.object_id.as_bytes() == object.object_id))
        .collect()
}

fn is_recorded(standing: &Standing, object_id: &[u8]) -> bool {
    standing.keys().any(|key| key.object_id == object_id)
}

impl Service {
    /// Cleans up after unfinished generations on this token. Needs the fleet lock: nobody else is generating.
    pub(super) async fn clean_up_generations(&self, _guard: &Guard, home: &Home) -> Result<(), Error> {
        let standing = self.keyring.refresh().await?;
        for intent in standing.intents().iter().filter(|intent| intent.line() == home.line) {
            if is_recorded(&standing, intent.object_id.as_bytes()) {
                self.keyring.remove_intent(intent).await?;
            } else {
                self.destroy_leftovers(intent, home).await?;
            }
        }
        if standing.intents().is_empty() {
            return Ok(());
        }
        self.keyring.refresh().await.map(|_| ())
    }

    async fn destroy_leftovers(&self, intent: &GenerationIntent, home: &Home) -> Result<(), Error> {
        let object_id = hex::encode(intent.object_id.as_bytes());
        tracing::warn!(object_id, actor = intent.actor, "leftovers of an unfinished key generation are destroyed");
        let event = AuditEvent::of_service(EventType::KeyAccessed, "destroy_leftovers", &object_id, self.clock.now())
            .detail("object_id", object_id.clone())
            .detail("intended_by", intent.actor.clone());
        let work = async {
            let prefix = format!("{}:", self.signer.id);
            home.token.destroy_leftovers(intent.object_id.as_bytes().to_vec(), prefix).await?;
            self.keyring.remove_intent(intent).await
        };
        self.on_record(event.clone(), work, |()| event.of_severity(Severity::Warning)).await
    }
}
