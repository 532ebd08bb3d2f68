//! Whether the service can do its job now, and what an operator should know.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::Mutex;

use crate::{
    key::KeyEntry,
    service::{Error, Service, nonce_watch::why_unusable, standby::TokenHealth},
    timestamp::Timestamp,
    token,
};

/// How long a look at the dependencies is good for.
const PROBE_LIFE: Duration = Duration::from_millis(500);

/// How far the clocks of a fleet's members may be apart without a word: the key may have been made
/// by another.
const CLOCKS_APART_SECONDS: i64 = 60;

/// The last look at the dependencies.
pub type LastProbe = Mutex<Option<(Instant, Probe)>>;

/// What a look at token and nonce store found.
#[derive(Clone, Debug)]
pub struct Probe {
    dependencies: Vec<Dependency>,
    warnings: Vec<String>,
}

/// One thing we stand on.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Dependency {
    pub name: &'static str,
    pub healthy: bool,
    pub detail: String,
}

/// The body of `GET /healthz`.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Health {
    pub healthy: bool,
    pub status: &'static str,
    pub active_key_id: Option<String>,
    pub key_expires_at: Option<Timestamp>,
    /// Seconds since the active key was activated.
    pub key_age: Option<i64>,
    pub rotation_pending: bool,
    /// An operator has taken this appliance out of service; the warnings say why.
    pub maintenance: bool,
    pub warnings: Vec<String>,
    pub dependencies: Vec<Dependency>,
    /// The primary and its standbys, where there are several tokens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<TokenHealth>,
}

impl Health {
    /// Why nothing can be signed; empty when something can.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        if self.healthy {
            return Vec::new();
        }
        let unhealthy = self.dependencies.iter().filter(|dependency| !dependency.healthy);
        let unhealthy = unhealthy.map(|dependency| format!("{}: {}", dependency.name, dependency.detail));
        unhealthy.chain(self.warnings.iter().cloned()).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of Unix time are far below 2^52")]
fn unix(time: Option<Timestamp>) -> f64 {
    time.map_or(0.0, |time| time.unix_milliseconds() as f64 / 1000.0)
}

impl Service {
    /// Looks at everything that signing needs.
    pub async fn health(&self) -> Health {
        let reading = self.keyring.freshen().await;
        let now = self.clock.now();
        let Probe { mut dependencies, mut warnings } = self.probe().await;
        dependencies.push(self.audit_health());
        for dependency in &dependencies {
            self.metrics
                .service_health
                .with_label_values(&[dependency.name])
                .set(f64::from(u8::from(dependency.healthy)));
        }
        if let Err(error) = reading {
            warnings.push(format!("the key ledger cannot be read: {error}"));
        }
        let active = self.signing_key();
        if let Err(error) = &active {
            warnings.push(match error {
                Error::NoActiveKey => self.advice_without_key().to_owned(),
                other => format!("nothing can be signed: {other}"),
            });
        }
        let key = active.as_ref().ok();
        let age_of = |key: &KeyEntry| key.activated_at.map(|activated| now.seconds_since(activated));
        let key_age = key.and_then(|key| age_of(key));
        let in_use = self.in_use();
        let is_old = |key: &&Arc<KeyEntry>| age_of(key).is_some_and(|age| age >= self.policy.key.warn_age_seconds());
        warnings.extend(in_use.iter().filter(is_old).map(|key| match self.tokens.current() {
            None => "the active key is near its maximum age: rotate it".to_owned(),
            Some(_) => format!("the active key {} is near its maximum age: rotate it", key.id),
        }));
        let waits = |(name, key)| format!("the rotation of {key} is due, and waits for {name}");
        warnings.extend(self.overdue().await.into_iter().map(|(name, key)| waits((name, key.id.to_string()))));
        if key_age.is_some_and(|age| age < -CLOCKS_APART_SECONDS) {
            warnings.push("the clock is behind the active key's activation: check this machine's clock".to_owned());
        }
        if self.audit.free_bytes() < self.policy.audit_warn_below && self.audit.free_bytes() > 0 {
            warnings.push("the disk of the audit trail is nearly full: make room, or signing will stop".to_owned());
        }
        warnings.extend(self.checkpoints.tidiness.warning());
        let tokens = self.tokens_health();
        warnings.extend(Self::token_warnings(&tokens));
        let paused = self.maintenance.pause();
        warnings.extend(paused.as_ref().map(ToString::to_string));
        // Of several tokens' keys, the one that needs an operator first.
        let oldest = in_use.iter().filter_map(|key| age_of(key)).max();
        self.metrics.active_keys.set(i64::try_from(in_use.len()).unwrap_or(i64::MAX));
        #[expect(clippy::cast_precision_loss, reason = "an age in seconds is far below 2^52")]
        self.metrics.key_age_seconds.set(oldest.unwrap_or(0) as f64);
        self.metrics.key_expiry.set(unix(in_use.iter().map(|key| key.not_after).min()));
        let standing = self.keyring.standing();
        let open = standing.rotation_to_complete(now);
        self.metrics.rotation_overlap_end.set(unix(open.map(|rotation| rotation.overlap_until)));
        self.metrics.audit_checkpoint_age.set(self.checkpoint_age().as_secs_f64());
        let healthy = key.is_some() && dependencies.iter().all(|dependency| dependency.healthy);
        Health {
            healthy,
            status: match (healthy, paused.is_some(), warnings.is_empty()) {
                (true, true, _) => "maintenance",
                (true, false, true) => "ok",
                (true, false, false) => "warning",
                (false, _, _) => "unavailable",
            },
            active_key_id: key.map(|key| key.id.to_string()),
            key_expires_at: key.map(|key| key.not_after),
            key_age,
            maintenance: paused.is_some(),
            rotation_pending: self.tokens.homes().any(|(_, line)| standing.rotation_in_progress(line, now).is_some()),
            warnings,
            dependencies,
            tokens,
        }
    }

    /// Looks at token and nonce store, at most twice a second: anybody may ask for health, and must
    /// not keep the token busy with it.
    async fn probe(&self) -> Probe {
        let mut last = self.last_probe.lock().await;
        match &*last {
            Some((at, found)) if at.elapsed() < PROBE_LIFE => found.clone(),
            Some(_) | None => {
                let (nonce_store, warnings) = self.nonce_health().await;
                let found = Probe { dependencies: vec![self.token_health().await, nonce_store], warnings };
                *last = Some((Instant::now(), found.clone()));
                found
            }
        }
    }

    /// The keys that may sign, of all tokens, by a fresh reading of the ledger.
    fn in_use(&self) -> Vec<Arc<KeyEntry>> {
        let now = self.clock.now();
        self.tokens.homes().filter_map(|(_, line)| self.keyring.active(line, now).ok()).collect()
    }

    /// Whether the token is there, and the active key in it.
    async fn ask_token(&self) -> Result<(), token::Error> {
        self.token.ping().await?;
        match self.keyring.standing().active(self.tokens.line()) {
            Some(key) => self.token.key_attributes(key.object_id.clone()).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// What to do when no key is active.
    fn advice_without_key(&self) -> &'static str {
        if self.keyring.standing().is_empty() {
            "there is no key yet: nothing can be signed; stop this process and run `verification-signer init`"
        } else {
            "no key is active (it was revoked): nothing can be signed; make a new one with POST /api/v1/keys/rotate"
        }
    }

    async fn token_health(&self) -> Dependency {
        let identity = self.token.identity();
        match self.ask_token().await {
            Ok(()) => {
                Dependency { name: "token", healthy: true, detail: identity.uri().to_string() + &self.token_process() }
            }
            Err(error) => {
                if let Some(standby) = self.tokens.ready(|line| self.may_sign(line)) {
                    let detail =
                        format!("the primary {} does not answer as it should; {standby} signs", identity.uri());
                    return Dependency { name: "token", healthy: true, detail };
                }
                tracing::warn!(%error, "the token does not answer as it should");
                Dependency { name: "token", healthy: false, detail: "the token does not answer, or the active key is not in it; see the log. It is looked for until it is back; a PIN that was refused is not tried again before a restart".into() }
            }
        }
    }

    /// Where the module is, when it is in a process of its own.
    fn token_process(&self) -> String {
        self.token.losses().map_or_else(String::new, |losses| {
            format!("; its module is in a process of its own, which had to be started again {losses} times")
        })
    }

    /// How the nonce store is, and what else there is to say of it.
    async fn nonce_health(&self) -> (Dependency, Vec<String>) {
        match self.ask_nonce_store().await {
            Ok(stats) => {
                let warnings = self.concerns(&stats, &BTreeSet::new()).into_iter().map(|(_, text)| text).collect();
                let clock = stats.server.map(|server| format!(", clock {:+.3} s against ours", server.clock_ahead));
                let detail = self.nonces.describe() + &clock.unwrap_or_default();
                (Dependency { name: "nonce_store", healthy: true, detail }, warnings)
            }
            Err(error) => {
                tracing::warn!(%error, "the nonce store cannot be used");
                (Dependency { name: "nonce_store", healthy: false, detail: why_unusable(&error) }, Vec::new())
            }
        }
    }

    fn audit_health(&self) -> Dependency {
        let trouble = self.audit.trouble().err().map(|trouble| trouble.to_string());
        let (healthy, detail) = (trouble.is_none(), trouble.unwrap_or_else(|| "records are written".into()));
        Dependency { name: "audit", healthy, detail }
    }
}
