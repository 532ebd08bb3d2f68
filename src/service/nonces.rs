//! Nonces on order.

use std::time::{Duration, Instant};

use crate::{
    attestation::{AttestationType, InvalidField, request::is_address},
    audit::{Event, EventType, Severity},
    client::Client,
    nonce::{Issued, Order, Removed, Stats, WINDOW_SECONDS},
    quota::Charge,
    service::{Error, Service, policy::permit_type},
    timestamp::Timestamp,
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
        self.in_service()?;
        let now = self.clock.now();
        let count = bounded_count(order.count)?;
        let order = Order {
            issuer: client.identity.clone(),
            attestation_type: order.attestation_type,
            window: self.window(order.window_seconds)?,
            subject_address: subject(order.subject_address)?,
            charges: Vec::new(),
        };
        let named = order.subject_address.as_deref();
        named.map_or(Ok(()), |subject| self.admit_subject(subject))?;
        let charges = self.limits.of_nonces(client, named, count);
        let order = Order { charges, ..order };
        let event = Event::of_client(EventType::NonceCreated, "issue", order.attestation_type.as_str(), client, now);
        self.permit(permit_type(client, order.attestation_type), &event).await?;
        match self.issue_charged(&order, count, now).await {
            Ok(issued) => {
                self.count_checks(&names(&order.charges));
                self.audit.record(event.detail("count", issued.len())).await?;
                self.metrics.nonce_created.inc_by(issued.len() as u64);
                Ok(issued)
            }
            Err(Error::Limited(exceeded)) => Err(self.exceeded(client, *exceeded).await),
            Err(error) => {
                if matches!(error, Error::Nonce(_) | Error::NonceStoreFull(_)) {
                    self.metrics.nonce_rejected.with_label_values(&[error.kind()]).inc();
                }
                self.audit.record(event.failed(Severity::Warning).detail("reason", error.kind())).await?;
                Err(error)
            }
        }
    }

    async fn issue_charged(&self, order: &Order, count: usize, now: Timestamp) -> Result<Vec<Issued>, Error> {
        if !self.nonces.charges() {
            self.limits.take(&order.charges).map_err(|exceeded| Error::Limited(Box::new(exceeded)))?;
        }
        Ok(self.nonces.issue(order, count, now).await?)
    }

    /// Counts, with the gauges brought up to date.
    pub async fn nonce_stats(&self) -> Result<Stats, Error> {
        let stats = self.nonces.stats().await?;
        self.publish(&stats);
        Ok(stats)
    }

    /// Brings the gauges up to date.
    pub fn publish(&self, stats: &Stats) {
        let metrics = &self.metrics;
        metrics.nonce_store_size.set(i64::try_from(stats.size()).unwrap_or(i64::MAX));
        metrics.nonce_expired.inc_by(stats.expired_total.saturating_sub(metrics.nonce_expired.get()));
        metrics.nonce_store_fill.with_label_values(&["capacity"]).set(stats.fill());
        metrics.nonce_store_fill.with_label_values(&["largest_issuer"]).set(stats.fullest_issuer());
        if let Some(server) = &stats.server {
            metrics.nonce_store_fill.with_label_values(&["memory"]).set(server.memory_fill());
            metrics.nonce_store_clock_ahead.set(server.clock_ahead);
        }
    }

    /// Forgets nonces whose window has ended.
    pub async fn clean_up_nonces(&self) -> Result<Removed, Error> {
        let now = self.clock.now();
        let removed = self.nonces.cleanup(now).await?;
        if removed.total() > 0 {
            let event =
                Event::of_service(EventType::NonceExpired, "forget", "nonces", now).detail("count", removed.total());
            self.audit.record(event).await?;
        }
        Ok(removed)
    }

    /// The same, because a client asked for it: on record, with what it removed and in how many seconds.
    pub async fn clean_up_nonces_for(&self, client: &Client) -> Result<(Removed, f64), Error> {
        let begun = Instant::now();
        let removed = self.nonces.cleanup(self.clock.now()).await?;
        let event =
            Event::of_client(EventType::NonceExpired, "cleanup", self.nonces.describe(), client, self.clock.now())
                .detail("expired", removed.expired)
                .detail("used", removed.used);
        self.audit.record(event).await?;
        Ok((removed, begun.elapsed().as_secs_f64()))
    }

    fn window(&self, asked: Option<u64>) -> Result<Duration, Error> {
        match asked {
            None => Ok(self.policy.nonce_window),
            Some(seconds) if WINDOW_SECONDS.contains(&seconds) => Ok(Duration::from_secs(seconds)),
            Some(_) => Err(InvalidField { field: "window_seconds", detail: "expected 300 to 86400 seconds" }.into()),
        }
    }
}

/// The limits that were looked at, each once.
pub(super) fn names(charges: &[Charge]) -> Vec<&'static str> {
    let mut names: Vec<_> = charges.iter().map(|charge| charge.limit).collect();
    names.dedup();
    names
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
