//! Standbys kept ready, and what is said of them: looked at again and again, swept of keys that were destroyed,
//! on record when another token signs. How and why is in [`crate::token::standby`].

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use crate::{
    audit::{Event, EventType, Severity},
    key::{KeyEntry, Line, Standing},
    service::{Error, Service, opaque::OpaqueOrder},
    token::{
        self, KeyRef, Keys, Token,
        standby::{Condition, PRIMARY, Standby, Switch},
    },
};

/// One of several tokens, as `GET /healthz` shows it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct TokenHealth {
    /// `primary`, `standby-1`, …
    pub name: String,
    pub token: String,
    /// Copies of the primary's, or its own.
    pub keys: Keys,
    /// Of the keys that it has, the one that may sign now.
    pub active_key_id: Option<String>,
    /// Asked first for signatures now.
    pub signs: bool,
    /// It could sign with the key that is active on it.
    pub ready: bool,
    pub detail: String,
}

/// How long a look at the primary may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// The record of a signature names the token that made it, where there are several.
pub(super) fn signed_on(event: Event, on: Option<&(String, String)>) -> Event {
    match on {
        Some((name, serial)) => event.detail("token", name.clone()).detail("token_serial", serial.clone()),
        None => event,
    }
}

fn in_words(condition: &Condition, has_active: bool, keys: Keys) -> String {
    match condition {
        Condition::Unseen => "not looked at yet".to_owned(),
        Condition::Away(why) => format!("away: {why}"),
        Condition::Refused(problem) => format!("its PIN {problem}"),
        Condition::Here { lacks } if lacks.is_empty() && has_active => "has the keys that sign and will".to_owned(),
        Condition::Here { lacks } if lacks.is_empty() => "has not shown the active key yet".to_owned(),
        Condition::Here { lacks } => format!(
            "lacks {}{}",
            lacks.join(", "),
            match keys {
                Keys::Cloned => ": clone them to it",
                Keys::Own => "",
            }
        ),
    }
}

impl Service {
    /// Whether the primary would sign; what follows for who signs first.
    pub async fn look_at_primary(&self) {
        let active = |line: &Line| self.may_sign(line);
        let look = async {
            match active(self.tokens.line()) {
                Some(key) => self.token.sign(&KeyRef::from(&*key), &OpaqueOrder::canary("look")).await.map(drop),
                // It answers, and another signs as long as it has no key to sign with.
                None if self.tokens.ready(active).is_some() => {
                    Err(token::Error::Lost("none of its keys may sign".into()))
                }
                None => self.token.ping().await,
            }
        };
        let looked = tokio::time::timeout(PATIENCE, look).await;
        let error = looked.unwrap_or(Err(token::Error::Deadline(PATIENCE))).err();
        self.tokens.looked(error.as_ref(), active);
        self.publish_tokens();
    }

    /// Opens a standby that is not open, sweeps it, has it show its keys; says what has changed.
    pub async fn look_at_standby(&self, standby: &Standby) {
        let _looking = standby.looking.lock().await;
        let before = standby.condition();
        match self.admit(standby).await {
            Ok(lacks) => standby.find(lacks),
            Err(Error::Token(error)) => standby.fail(&error),
            // What must not be on it is on it.
            Err(error) => {
                tracing::error!(%error, standby = standby.name(), "the standby was not swept: it does not sign");
                standby.distrust("a destroyed key could not be removed from it");
            }
        }
        self.tell_standby(standby, &before);
    }

    /// In this order: nothing is signed on it before it was swept.
    async fn admit(&self, standby: &Standby) -> Result<Vec<String>, Error> {
        let token = standby.token().await?;
        token.ping().await?;
        self.recognise(standby, &token).map_err(|why| token::Error::Lost(why.into()))?;
        standby.notice_losses(&token);
        let standing = self.keyring.standing();
        self.sweep(standby, &token, &standing).await?;
        let mut lacks: Vec<_> = Self::lacks_first_key(&standing, standby).into_iter().collect();
        for key in standing.needed(self.tokens.line_of(standby), self.clock.now()) {
            match standby.prove(&token, key, &OpaqueOrder::canary("standby")).await {
                Ok(()) => {}
                Err(
                    error @ (token::Error::KeyMissing { .. } | token::Error::KeyPolicy(_) | token::Error::BadSignature),
                ) => {
                    lacks.push(format!("{} ({error})", key.id));
                }
                Err(error) => return Err(error.into()),
            }
        }
        // On a token with keys of its own nobody expects it.
        if let Some(key) = self.checkpoints.key().filter(|_| standby.own_line().is_none())
            && !standby.show_audit_key(&token, key).await?
        {
            lacks.push(format!("the audit key ({})", key.label()));
        }
        Ok(lacks)
    }

    /// Destroys on a standby what was destroyed of its line: on the primary, of which it is a clone, or on itself, if
    /// it was set back since.
    async fn sweep(&self, standby: &Standby, token: &Arc<Token>, standing: &Standing) -> Result<(), Error> {
        let line = self.tokens.line_of(standby);
        let destroyed: Vec<&KeyEntry> =
            standing.keys().filter(|key| key.destroyed_at.is_some() && key.line == *line).map(AsRef::as_ref).collect();
        for object_id in standby.leftovers(token, &self.signer.id, &destroyed).await? {
            let key = destroyed.iter().find(|key| key.object_id == object_id);
            let key_id = key.map_or_else(String::new, |key| key.id.to_string());
            let event = Event::of_service(EventType::KeyAccessed, "destroy_on_standby", &key_id, self.clock.now())
                .detail("key_id", key_id.clone())
                .detail("token", standby.name())
                .detail("token_serial", token.identity().serial.clone())
                .of_severity(Severity::Warning);
            let work = async { Ok(token.destroy_private_key(object_id).await?) };
            self.on_record(event.clone(), work, |_| event).await?;
            tracing::warn!(key_id, standby = standby.name(), "private key destroyed on a standby");
        }
        Ok(())
    }

    /// Has every standby that answers swept now.
    pub(super) async fn look_at_standbys(&self) {
        for standby in self.tokens.standbys().iter().filter(|standby| standby.here().is_some()) {
            // One that does not answer any more is swept when it does.
            let _ = tokio::time::timeout(self.policy.patience, self.look_at_standby(standby)).await;
        }
    }

    fn tell_standby(&self, standby: &Standby, before: &Condition) {
        let (name, now) = (standby.name(), standby.condition());
        let token = standby.describe();
        match &now {
            _ if now == *before => {}
            Condition::Here { lacks } if lacks.is_empty() => tracing::info!(name, token, "the standby is ready"),
            Condition::Here { lacks } => {
                tracing::warn!(name, token, ?lacks, keys = ?standby.keys(), "the standby lacks keys");
            }
            // How it is away may be said in several ways; once is enough.
            Condition::Away(_) if matches!(before, Condition::Away(_)) => {}
            Condition::Away(why) => tracing::warn!(name, token, why, "the standby is away"),
            Condition::Unseen => {}
            Condition::Refused(problem) => tracing::error!(name, token, %problem, "the standby's PIN was refused"),
        }
        self.publish_tokens();
    }

    fn publish_tokens(&self) {
        let tokens = self.tokens_health();
        let is_standby = |token: &&TokenHealth| token.name != PRIMARY;
        let unready = tokens.iter().filter(is_standby).filter(|token| !token.ready).count();
        self.metrics.standbys_unready.set(i64::try_from(unready).unwrap_or(i64::MAX));
        self.metrics.standby_signs.set(i64::from(tokens.iter().filter(is_standby).any(|token| token.signs)));
        for token in tokens {
            let gauge = |set: bool| i64::from(set);
            self.metrics.token_signs.with_label_values(&[&token.name]).set(gauge(token.signs));
            self.metrics.token_ready.with_label_values(&[&token.name]).set(gauge(token.ready));
        }
    }

    /// Every token, where there are several.
    pub(super) fn tokens_health(&self) -> Vec<TokenHealth> {
        let Some(current) = self.tokens.current() else { return Vec::new() };
        let key_of = |line: &Line| self.may_sign(line);
        let id = |key: &Option<Arc<KeyEntry>>| key.as_ref().map(|key| key.id.to_string());
        let primary = TokenHealth {
            name: PRIMARY.to_owned(),
            token: self.token.identity().uri().to_string(),
            keys: Keys::Own,
            active_key_id: id(&key_of(self.tokens.line())),
            signs: current == PRIMARY,
            ready: self.tokens.primary_does_well(),
            detail: if self.tokens.primary_does_well() { "signs" } else { "does not sign" }.to_owned(),
        };
        let standbys = self.tokens.standbys().iter().map(|standby| {
            let key = key_of(self.tokens.line_of(standby));
            let ready = key.as_ref().is_some_and(|key| standby.ready(&KeyRef::from(&**key)).is_some());
            TokenHealth {
                name: standby.name().to_owned(),
                token: standby.describe(),
                keys: standby.keys(),
                active_key_id: id(&key),
                signs: current == standby.name(),
                ready,
                detail: in_words(&standby.condition(), ready || key.is_none(), standby.keys()),
            }
        });
        std::iter::once(primary).chain(standbys).collect()
    }

    /// What an operator should know of them.
    pub(super) fn token_warnings(tokens: &[TokenHealth]) -> Vec<String> {
        let unready =
            tokens.iter().filter(|token| token.name != PRIMARY && (!token.ready || token.detail.starts_with("lacks")));
        let unready =
            unready.map(|token| format!("{} ({}) is no full standby: {}", token.name, token.token, token.detail));
        let away = tokens.iter().filter(|token| token.signs && token.name != PRIMARY);
        let away = away.map(|token| {
            let keys = match token.keys {
                Keys::Cloned => "keys can be changed on the primary only",
                Keys::Own => "with its own key; the primary's cannot be changed before that is back",
            };
            format!("{} signs in the primary's place: {keys}", token.name)
        });
        away.chain(unready).collect()
    }

    /// Puts on record that another token signs.
    pub async fn record_switch(&self, switch: Switch) {
        let Switch { from, to, why } = switch;
        tracing::warn!(from, to, why, "another token signs");
        self.metrics.token_switches.with_label_values(&[&to]).inc();
        self.publish_tokens();
        let tokens = self.tokens_health();
        let uri = tokens.iter().find(|token| token.name == to).map(|token| token.token.clone()).unwrap_or_default();
        let event = Event::of_service(EventType::Error, "switch_token", uri, self.clock.now())
            .of_severity(if to == PRIMARY { Severity::Info } else { Severity::Critical })
            .detail("from", from)
            .detail("to", to.clone())
            .detail("reason", why);
        let event = if to == PRIMARY { event.of_kind(EventType::HealthCheck) } else { event };
        self.record_or_warn(event, "a change of the token that signs").await;
    }
}
