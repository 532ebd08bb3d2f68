//! On which token a key is made, certified and destroyed: the primary, or a standby with keys of its own.

use std::{sync::Arc, time::Duration};

use crate::{
    attestation::InvalidField,
    key::{KeyEntry, KeyId, Line, Standing},
    service::{
        Error, Service,
        first_key::{Asker, permit_on_standby},
        lifecycle::Actor,
    },
    token::{
        Token, audit_label_prefix,
        standby::{Standby, Turns},
    },
};

/// How long a start waits for a standby on which a first key is to be made.
const PATIENCE: Duration = Duration::from_secs(20);

/// A token on which keys are made, and that answers.
#[derive(Clone)]
pub(super) struct Home {
    pub line: Line,
    pub token: Arc<Token>,
}

impl Service {
    /// The line of keys that a request means by the name of a token; where it names none, the primary's.
    pub fn line_named(&self, token: Option<&str>) -> Result<Line, Error> {
        let Some(name) = token else { return Ok(self.tokens.line().clone()) };
        let home = self.tokens.homes().find(|(known, _)| *known == name).map(|(_, line)| line.clone());
        let detail = "expected primary, or the name of a standby with keys of its own: GET /healthz lists them";
        home.ok_or_else(|| InvalidField { field: "token", detail }.into())
    }

    /// The name of the token that has these keys.
    pub(super) fn name_of(&self, line: &Line) -> Option<&str> {
        self.tokens.homes().find(|(_, known)| *known == line).map(|(name, _)| name)
    }

    /// The same, where there are several tokens.
    #[must_use]
    pub fn token_name(&self, line: &Line) -> Option<String> {
        self.tokens.current()?;
        self.name_of(line).map(ToOwned::to_owned)
    }

    /// The token on which the keys of this line are made, when it answers. Where there is one token only, what is
    /// asked of it says so itself.
    pub(super) async fn home(&self, line: &Line) -> Result<Home, Error> {
        let token = self.token_with(line)?;
        if !self.tokens.standbys().is_empty() && token.ping().await.is_err() {
            return Err(self.away(line));
        }
        Ok(Home { line: line.clone(), token })
    }

    /// The token with the keys of this line.
    pub fn token_with(&self, line: &Line) -> Result<Arc<Token>, Error> {
        self.tokens.home(line).ok_or_else(|| self.away(line))
    }

    pub(super) fn away(&self, line: &Line) -> Error {
        if line == self.tokens.line() {
            let signing = self.tokens.ready(|line| self.may_sign(line)).map(ToOwned::to_owned);
            return Error::PrimaryAway { token: self.token.identity().uri().to_string(), signing };
        }
        let token = match self.tokens.standby_with(line) {
            Some(standby) => format!("{} ({})", standby.name(), standby.describe()),
            None => format!("the one with {line}, which the configuration does not name,"),
        };
        Error::StandbyAway { token }
    }

    /// The key of this line that may sign now, as of the last reading of the ledger.
    pub(super) fn may_sign(&self, line: &Line) -> Option<Arc<KeyEntry>> {
        let standing = self.keyring.standing();
        standing.active(line).filter(|key| key.state(self.clock.now()).may_sign()).cloned()
    }

    /// Who signs now, one after another, by a fresh reading of the ledger.
    pub(super) fn turns(&self) -> Result<Turns, Error> {
        let primary = self.keyring.active(self.tokens.line(), self.clock.now());
        if matches!(primary, Err(Error::StaleLedger)) {
            return Err(Error::StaleLedger);
        }
        let turns = self.tokens.turns(|line| self.may_sign(line));
        match primary {
            Err(error) if turns.key().is_none() => Err(error),
            Ok(_) | Err(_) => Ok(turns),
        }
    }

    /// The same for this key alone.
    pub(super) fn turns_of(&self, key: &KeyEntry) -> Result<Turns, Error> {
        self.keyring.still_active(&key.id, self.clock.now())?;
        let turns = self.tokens.turns(|line| self.may_sign(line).filter(|active| active.id == key.id));
        if turns.key().is_none() { Err(self.away(&key.line)) } else { Ok(turns) }
    }

    /// The key that signs now.
    pub fn signing_key(&self) -> Result<Arc<KeyEntry>, Error> {
        self.turns()?.key().cloned().ok_or(Error::NoActiveKey)
    }

    /// Makes the first key of every standby that is to have its own and never had one, where the asker says so; what
    /// came of it. A standby that is away gets it at a later start.
    pub async fn make_first_keys(&self, asker: &Asker) -> Vec<(String, Result<KeyId, Error>)> {
        let mut made = Vec::new();
        for standby in self.tokens.standbys() {
            let Some(line) = standby.own_line() else { continue };
            if self.keyring.standing().was_active(line) || !asker.may_on_standby(standby.may_get_first_key()) {
                continue;
            }
            let result = self.first_key_of(standby, line, &Actor::program(asker.name())).await;
            match &result {
                Ok(id) => tracing::info!(key_id = %id, standby = standby.name(), "its first key is active"),
                Err(error) => tracing::error!(%error, standby = standby.name(), "its first key was not made"),
            }
            made.push((standby.name().to_owned(), result));
        }
        made
    }

    async fn first_key_of(&self, standby: &Standby, line: &Line, actor: &Actor) -> Result<KeyId, Error> {
        // It is opened, and swept.
        let _ = tokio::time::timeout(PATIENCE, self.look_at_standby(standby)).await;
        let home = self.home(line).await?;
        let mut objects = home.token.key_objects(format!("{}:", self.signer.id)).await?;
        objects.extend(home.token.key_objects(audit_label_prefix(&self.signer.id)).await?);
        permit_on_standby(&self.keyring.standing(), standby.name(), &objects)?;
        self.make_first_key(line, actor).await
    }

    /// Whether a token with keys of its own is the one that the ledger knows, and another than the primary.
    pub(super) fn recognise(&self, standby: &Standby, token: &Token) -> Result<(), String> {
        let Some(serial) = standby.own_line().and_then(Line::serial) else { return Ok(()) };
        let found = &token.identity().serial;
        if found == serial && *found != self.token.identity().serial {
            return Ok(());
        }
        Err(format!(
            "its serial is {found}: a token with keys of its own has the one of its uri, and not the primary's"
        ))
    }

    /// What a standby without a key of its own lacks.
    pub(super) fn lacks_first_key(standing: &Standing, standby: &Standby) -> Option<String> {
        let line = standby.own_line()?;
        let says = "a first key of its own: run `verification-signer init`, or set first_key_on_token_serial";
        (!standing.was_active(line)).then(|| says.to_owned())
    }
}
