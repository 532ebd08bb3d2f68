//! Nonces on order.

use std::time::Duration;

use crate::{
    attestation::{AttestationType, InvalidField, request::is_address},
    audit::{Event, EventType, Severity},
    client::Client,
    nonce::{Issued, Order, Stats, WINDOW_SECONDS},
    service::{Error, Service},
};

/// Most nonces in one batch.
pub const MAX_BATCH: u64 = 1000;

/// A caller's order, as it came.
#[derive(Clone, Debug)]
pub struct NonceOrder {
    pub attestation_type: AttestationType,
    pub subject_address: Option<String>,
    pub window_seconds: Option<u64>,
    pub count: u64,
}

impl Service {
    /// Issues nonces and records that it did.
    pub async fn issue_nonces(&self, client: &Client, order: NonceOrder) -> Result<Vec<Issued>, Error> {
        let now = self.clock.now();
        let count = bounded_count(order.count)?;
        let order = Order {
            issuer: client.identity.clone(),
            attestation_type: order.attestation_type,
            window: self.window(order.window_seconds)?,
            subject_address: subject(order.subject_address)?,
        };
        let event = Event::of_client(EventType::NonceCreated, "issue", order.attestation_type.as_str(), client, now);
        match self.nonces.issue(&order, count, now).await.map_err(Error::from) {
            Ok(issued) => {
                self.audit.record(event.detail("count", issued.len())).await?;
                self.metrics.nonce_created.inc_by(issued.len() as u64);
                Ok(issued)
            }
            Err(error) => {
                if let Error::Nonce(refusal) = &error {
                    self.metrics.nonce_rejected.with_label_values(&[refusal.as_str()]).inc();
                }
                self.audit.record(event.failed(Severity::Warning).detail("reason", error.kind())).await?;
                Err(error)
            }
        }
    }

    /// Counts, with the gauges brought up to date.
    pub async fn nonce_stats(&self) -> Result<Stats, Error> {
        let stats = self.nonces.stats().await?;
        let size = stats.outstanding + stats.spent;
        self.metrics.nonce_store_size.set(i64::try_from(size).unwrap_or(i64::MAX));
        self.metrics.nonce_expired.inc_by(stats.expired_total.saturating_sub(self.metrics.nonce_expired.get()));
        Ok(stats)
    }

    /// Forgets nonces whose window has ended.
    pub async fn clean_up_nonces(&self) -> Result<u64, Error> {
        let now = self.clock.now();
        let removed = self.nonces.cleanup(now).await?;
        if removed > 0 {
            let event = Event::of_service(EventType::NonceExpired, "forget", "nonces", now).detail("count", removed);
            self.audit.record(event).await?;
        }
        Ok(removed)
    }

    fn window(&self, asked: Option<u64>) -> Result<Duration, Error> {
        match asked {
            None => Ok(self.policy.nonce_window),
            Some(seconds) if WINDOW_SECONDS.contains(&seconds) => Ok(Duration::from_secs(seconds)),
            Some(_) => Err(InvalidField { field: "window_seconds", detail: "expected 300 to 86400 seconds" }.into()),
        }
    }
}

fn bounded_count(count: u64) -> Result<usize, Error> {
    let refused = InvalidField { field: "count", detail: "expected 1 to 1000" };
    if (1..=MAX_BATCH).contains(&count) {
        usize::try_from(count).map_err(|_| refused.into())
    } else {
        Err(refused.into())
    }
}

fn subject(address: Option<String>) -> Result<Option<String>, Error> {
    match address {
        Some(address) if !is_address(&address) || address.len() > 128 => Err(InvalidField {
            field: "subject_address",
            detail: "expected 1 to 128 ASCII letters, digits, or the characters . _ : -",
        }
        .into()),
        other => Ok(other),
    }
}
