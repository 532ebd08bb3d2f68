//! What an operator should know of the nonce store before it refuses anything: in health for as long as
//! it lasts; in the log, and on record, once when it begins.

use std::collections::BTreeSet;

use crate::{
    audit::{Event, EventType, Severity},
    nonce::{ClientNonces, Error, ServerStats, Stats},
    service::Service,
};

/// From this share on, of whatever bound, there is a word.
const NEARLY_FULL: f64 = 0.80;

/// Below this share, what was nearly full no longer is: a share that wavers is said once.
const ROOM_AGAIN: f64 = 0.75;

/// What there is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// It does not answer, or may not be used.
    Unusable,
    NearlyFull,
    IssuerNearlyFull,
    MemoryNearlyFull,
    ClockDiffers,
    ClientNoncesClosed,
}

impl Concern {
    /// The word in the trail.
    fn as_str(self) -> &'static str {
        match self {
            Self::Unusable => "nonce_store_unusable",
            Self::NearlyFull => "nonce_store_nearly_full",
            Self::IssuerNearlyFull => "nonce_issuer_nearly_full",
            Self::MemoryNearlyFull => "nonce_store_memory_nearly_full",
            Self::ClockDiffers => "nonce_store_clock_differs",
            Self::ClientNoncesClosed => "client_nonces_closed",
        }
    }
}

/// What has been said and still holds.
#[derive(Default)]
pub struct NonceWatch(BTreeSet<Concern>);

impl NonceWatch {
    /// Asks the store how it is, and says what is new.
    pub async fn look(&mut self, service: &Service) {
        let found = match service.ask_nonce_store().await {
            Ok(stats) => service.concerns(&stats, &self.0),
            Err(error) => vec![(Concern::Unusable, why_unusable(&error))],
        };
        for (concern, text) in &found {
            if self.0.insert(*concern) {
                service.begin(*concern, text).await;
            }
        }
        self.0.retain(|said| {
            let holds = found.iter().any(|(concern, _)| concern == said);
            if !holds {
                tracing::info!(concern = said.as_str(), "over");
            }
            holds
        });
    }
}

/// Why the store cannot be used, for people who may know that there is one.
#[must_use]
pub fn why_unusable(error: &Error) -> String {
    match error {
        Error::Unfit(why) => why.clone(),
        Error::Unavailable(_)
        | Error::Refused(_)
        | Error::Limited(_)
        | Error::Full(_)
        | Error::Replayed { .. }
        | Error::InProgress => "the nonce store does not answer; see the log".into(),
    }
}

impl Service {
    /// How the store is, with the gauges brought up to date.
    pub async fn ask_nonce_store(&self) -> Result<Stats, Error> {
        let stats = self.nonces.ping().await?;
        self.publish(&stats);
        Ok(stats)
    }

    /// What is to be said of a store in this condition. What has been said before holds a little longer.
    pub fn concerns(&self, stats: &Stats, said: &BTreeSet<Concern>) -> Vec<(Concern, String)> {
        let nearly_full = |concern, share| share >= if said.contains(&concern) { ROOM_AGAIN } else { NEARLY_FULL };
        let mut found = Vec::new();
        if nearly_full(Concern::NearlyFull, stats.fill()) {
            found.push((Concern::NearlyFull, store_text(stats)));
        }
        if nearly_full(Concern::IssuerNearlyFull, stats.fullest_issuer()) {
            found.push((Concern::IssuerNearlyFull, issuer_text(stats)));
        }
        let Some(server) = &stats.server else { return found };
        if nearly_full(Concern::MemoryNearlyFull, server.memory_fill()) {
            found.push((Concern::MemoryNearlyFull, memory_text(server)));
        }
        if server.clock_ahead.abs() >= self.policy.redis_clock_warning.as_secs_f64() {
            found.push((Concern::ClockDiffers, clock_text(server)));
        }
        if let ClientNonces::Closed(why) = &server.client_nonces {
            let text = format!("nonces brought by clients are refused for now (fetched ones are not): {why}");
            found.push((Concern::ClientNoncesClosed, text));
        }
        found
    }

    async fn begin(&self, concern: Concern, text: &str) {
        tracing::warn!(concern = concern.as_str(), "{text}");
        let event = Event::of_service(EventType::HealthCheck, "warn", self.nonces.describe(), self.clock.now())
            .of_severity(Severity::Warning)
            .detail("concern", concern.as_str())
            .detail("text", text);
        self.record_or_warn(event, "a warning about the nonce store").await;
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn store_text(stats: &Stats) -> String {
    format!(
        "the nonce store is {} full ({} of {} nonces): at 100 % no nonce is issued; run a cleanup, or raise nonce.capacity",
        percent(stats.fill()),
        stats.size(),
        stats.capacity
    )
}

fn issuer_text(stats: &Stats) -> String {
    let (issuer, held) = stats.per_issuer.first().map_or(("", 0), |(issuer, held)| (issuer, *held));
    format!(
        "{issuer} holds {held} of the {} unspent nonces that one issuer may hold: at 100 % it is issued no more",
        stats.outstanding_per_issuer
    )
}

fn memory_text(server: &ServerStats) -> String {
    format!(
        "Redis uses {} of its memory ({} of {} bytes): at 100 % no nonce is issued; give it more (maxmemory)",
        percent(server.memory_fill()),
        server.memory_used,
        server.memory_limit.unwrap_or(0)
    )
}

fn clock_text(server: &ServerStats) -> String {
    let (seconds, direction) = (server.clock_ahead.abs(), if server.clock_ahead > 0.0 { "ahead of" } else { "behind" });
    format!("the clock of Redis is {seconds:.1} s {direction} this machine's: check the time synchronisation of both")
}
