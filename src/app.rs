//! The appliance put together: build → addresses → run until stopped.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use crate::{
    attestation::AttestationType,
    audit::{self, Audit, Event, EventType, Severity, Source, checkpoint::Checkpoint, witness::Memory},
    authn::{self, Authn},
    clock::Clock,
    config::{Config, LedgerConfig},
    durable::{self, DirectoryLock},
    exit_code::ExitCode,
    fleet::{self, Fleet, RecordStream, RedisFleet, Single},
    http::{self, Servers, Wires},
    key::{KeyEntry, Ledger, LedgerError, LedgerUnavailable, Line, PublicKey, Standing, StoredRecord, seen::Seen},
    ledger_file::FileLedger,
    limits::{self, Blocks, Limits},
    metrics::Metrics,
    nonce::{self, ConnectError, MemoryStore, RedisStore},
    redis::{self, Pool},
    secret::SecretError,
    service::{
        self, Keyring, Policy, Service,
        approvals::{Approvals, Operation},
        checkpoints::Checkpoints,
        first_key::{self, Asker, Findings},
        lifecycle::Actor,
        maintenance::Maintenance,
        marker::{Marker, Mismatch},
        merkle::Gathering,
        once::Once,
        opaque::OpaqueOrder,
        readiness::LastProbe,
        witness::Witness,
    },
    supervisor::{self, Signals},
    timestamp::Timestamp,
    token::{
        self, AuditKey, DataObjectLedger, KeyRef, PinDesk, Token,
        standby::{Standby, Tokens},
    },
};

/// Why the appliance does not start. Every message says what was refused and why.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(String),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{0}")]
    Token(#[from] token::Error),
    #[error("state directory {path}: {source}")]
    State { path: PathBuf, source: std::io::Error },
    #[error("another process uses the state directory {path}: stop it, or name another directory")]
    StateLocked { path: PathBuf },
    #[error(transparent)]
    Audit(#[from] audit::OpenError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    LedgerUnavailable(#[from] LedgerUnavailable),
    #[error("ledger file {path}: {source}")]
    LedgerFile { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Mismatch(#[from] Mismatch),
    #[error("{0}")]
    FirstKey(#[from] first_key::Refusal),
    #[error(
        "the audit trail in {path} was signed by an audit key that the token does not show: find the right token, or move the trail aside to begin a new one"
    )]
    AuditKeyMissing { path: PathBuf },
    #[error("the active key {key_id} is not usable: {source}")]
    ActiveKey { key_id: String, source: Box<token::Error> },
    #[error("{0}")]
    Service(#[from] service::Error),
    #[error("metrics: {0}")]
    Metrics(String),
    #[error(transparent)]
    RedisConfig(#[from] redis::ConfigError),
    #[error(transparent)]
    Redis(#[from] ConnectError),
    #[error("{0}")]
    Fleet(#[from] fleet::Error),
    #[error("signal handlers cannot be installed: {0}")]
    Signals(std::io::Error),
    #[error("threads for batches cannot be started: {0}")]
    Threads(std::io::Error),
    #[error(transparent)]
    Authn(#[from] authn::OpenError),
    #[error("copies of the audit records: {0}")]
    Copies(std::io::Error),
    #[error(transparent)]
    Listen(#[from] http::BindError),
    #[error(
        "{error}; SoftHSM2 finds its tokens through SOFTHSM2_CONF, and {what}: set it (systemd: Environment=SOFTHSM2_CONF=…) to a file that this user can read"
    )]
    SoftHsmConfiguration { error: Box<token::Error>, what: String },
}

impl StartError {
    /// How the process ends with this error.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_)
            | Self::Authn(_)
            | Self::RedisConfig(_)
            | Self::Secret(_)
            | Self::FirstKey(first_key::Refusal::NotAsked { .. } | first_key::Refusal::Orphans(_))
            | Self::SoftHsmConfiguration { .. }
            | Self::Audit(audit::OpenError::Damaged { .. } | audit::OpenError::Behind { .. })
            | Self::Service(service::Error::NoAuditKey) => ExitCode::Config,
            Self::Listen(error) if error.is_configuration() => ExitCode::Config,
            // An HSM that is not reachable yet looks like no token at all: starting again may help,
            // and tries no PIN.
            Self::Token(token::Error::NoToken { .. }) => ExitCode::Unavailable,
            Self::Token(error) if error.is_configuration() => ExitCode::Config,
            Self::Token(_)
            | Self::State { .. }
            | Self::StateLocked { .. }
            | Self::Audit(_)
            | Self::Ledger(_)
            | Self::LedgerUnavailable(_)
            | Self::LedgerFile { .. }
            | Self::Mismatch(_)
            | Self::FirstKey(_)
            | Self::ActiveKey { .. }
            | Self::AuditKeyMissing { .. }
            | Self::Service(_)
            | Self::Metrics(_)
            | Self::Redis(_)
            | Self::Signals(_)
            | Self::Threads(_)
            | Self::Fleet(_)
            | Self::Copies(_)
            | Self::Listen(_) => ExitCode::Unavailable,
        }
    }
}

/// A token with its ledger read, before anything is served.
pub struct Opened {
    pub token: Arc<Token>,
    pub standing: Standing,
    marker: Marker,
    /// The ledger does not continue what was seen, and an operator accepted it.
    accepted: bool,
}

impl Opened {
    /// Logs in, reads the ledger, and compares it with what this appliance has seen before.
    /// Nothing is written.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        Self::open_remembering(config, &config.state.directory).await
    }

    /// The same with what is remembered in this directory.
    pub async fn open_remembering(config: &Config, memory: &Path) -> Result<Self, StartError> {
        let pins = PinDesk::new(config.token.pin_source().map_err(StartError::Config)?, &config.state.directory);
        // A PIN that may not be read is refused before the module is loaded.
        pins.look()?;
        let token = Arc::new(Token::open(&config.token, pins).map_err(|error| explain(config, error))?);
        another_than_the_primary(config, &token)?;
        let accepted = config.state.accept_ledger_head.as_deref();
        let marker = Marker::new(memory, &token.identity().serial, accepted);
        let standing = Standing::fold(&config.signer.id, ledger(config, &token)?.read().await?)?;
        let accepted = marker.compare(&standing)?;
        Ok(Self { token, standing, marker, accepted })
    }

    /// The line of the token's keys.
    #[must_use]
    pub fn line(&self) -> Line {
        self.standing.line_of(&self.token.identity().serial)
    }

    /// The key that is active on the token.
    #[must_use]
    pub fn active_key(&self) -> Option<&Arc<KeyEntry>> {
        self.standing.active(&self.line())
    }

    /// The tokens that have keys of their own in this ledger, as far as they answer: of those that do not, why.
    pub async fn own_tokens(&self, config: &Config) -> Result<OwnTokens, StartError> {
        let (mut here, mut away) = (Vec::new(), Vec::new());
        for standby in standbys(config)? {
            let Some(line) = standby.own_line().filter(|line| self.standing.has(line)).cloned() else { continue };
            match standby.token().await {
                Ok(_) => here.push((line, standby)),
                Err(error) => away.push(format!("{} is away: {error}", standby.name())),
            }
        }
        Ok(OwnTokens { primary: (self.line(), Arc::clone(&self.token)), here, away })
    }

    /// The ledger's records, as they are now.
    pub async fn records(&self, config: &Config) -> Result<Vec<StoredRecord>, StartError> {
        Ok(ledger(config, &self.token)?.read().await?)
    }

    /// The audit keys on the token, the newest first.
    pub async fn audit_keys(&self, config: &Config) -> Result<Vec<AuditKey>, StartError> {
        audit_keys(config, &self.token).await
    }

    /// Checks that the active key, if there is one, is on the token, is what its record says, and
    /// signs.
    pub async fn check_active_key(&self) -> Result<(), StartError> {
        let Some(key) = self.active_key() else { return Ok(()) };
        let order = OpaqueOrder::canary("start");
        let unusable = |source| StartError::ActiveKey { key_id: key.id.to_string(), source: Box::new(source) };
        self.token.sign(&KeyRef::from(&**key), &order).await.map_err(unusable)?;
        self.token.key_attributes(key.object_id.clone()).await.map_err(unusable)?;
        Ok(())
    }

    /// Opens each standby, and has it show the keys that sign and will: a line for each. One that is away is no
    /// reason to refuse anything.
    pub async fn check_standbys(&self, config: &Config) -> Result<Vec<String>, StartError> {
        let mut lines = Vec::new();
        for standby in standbys(config)? {
            let shown = self.check_standby(&standby).await;
            lines.push(match shown {
                Ok(()) => format!("{:<14} {}, has the keys that sign and will", standby.name(), standby.describe()),
                Err(error) => format!("warning        {} cannot take over: {error}", standby.name()),
            });
            standby.close();
        }
        Ok(lines)
    }

    async fn check_standby(&self, standby: &Standby) -> Result<(), token::Error> {
        let token = standby.token().await?;
        let line = standby.own_line().cloned().unwrap_or_else(|| self.line());
        if standby.own_line().is_some() && !self.standing.was_active(&line) {
            return Err(token::Error::Lost("it has no key of its own yet".into()));
        }
        for key in self.standing.needed(&line, Clock::system().now()) {
            standby.prove(&token, key, &OpaqueOrder::canary("check")).await?;
        }
        Ok(())
    }

    /// Reads the audit trail as `serve` does, from its last checkpoint on; how many records it has.
    pub async fn check_trail(&self, config: &Config) -> Result<u64, StartError> {
        config.audit.check_directory()?;
        let keys: Vec<_> = audit_keys(config, &self.token).await?.iter().map(|key| key.public_key().clone()).collect();
        Ok(audit::count(&config.audit.directory, &keys)?)
    }

    /// Whether a first key may be made here.
    pub async fn permit_first_key(&self, asker: &Asker, config: &Config) -> Result<(), StartError> {
        let mut key_objects = self.token.key_objects(format!("{}:", config.signer.id)).await?;
        // An audit key without a ledger says as well that this signer had keys here.
        key_objects.extend(self.token.key_objects(token::audit_label_prefix(&config.signer.id)).await?);
        let findings = Findings {
            standing: &self.standing,
            token_serial: &self.token.identity().serial,
            key_objects: &key_objects,
            marker: &self.marker,
            audit: &config.audit,
        };
        Ok(first_key::permit(asker, &findings)?)
    }
}

/// The tokens on which the keys of a ledger are, opened.
pub struct OwnTokens {
    primary: (Line, Arc<Token>),
    here: Vec<(Line, Standby)>,
    /// Those that do not answer.
    pub away: Vec<String>,
}

impl OwnTokens {
    /// The token that has this key; `None` when it is not there.
    pub async fn with(&self, key: &KeyEntry) -> Option<Arc<Token>> {
        let (line, primary) = &self.primary;
        if key.line == *line {
            return Some(Arc::clone(primary));
        }
        let (_, standby) = self.here.iter().find(|(line, _)| key.line == *line)?;
        standby.token().await.ok()
    }

    /// Ends the standbys' processes.
    pub fn close(&self) {
        self.here.iter().for_each(|(_, standby)| standby.close());
    }
}

/// A copy of the primary has no keys of its own: what is made on it would be told from the primary's by nobody.
fn another_than_the_primary(config: &Config, primary: &Token) -> Result<(), StartError> {
    let serial = &primary.identity().serial;
    let is_copy =
        |standby: &token::Config| standby.keys == token::Keys::Own && standby.uri.serial.as_ref() == Some(serial);
    if config.standby.iter().any(is_copy) {
        return Err(StartError::Config(format!(
            "a [[standby]] with keys = \"own\" has the serial of the primary, {serial}: a copy has no keys of its own"
        )));
    }
    Ok(())
}

/// Copies the ledger from the token into the file where the configuration wants it; how many records it has. No
/// appliance may use the token meanwhile. Repeated after a crash, it copies what is left.
pub async fn copy_ledger(config: &Config) -> Result<usize, StartError> {
    let LedgerConfig::File { path } = &config.ledger else {
        return Err(StartError::Config(
            "set [ledger] store = \"file\" and a path first: there the ledger is copied to".into(),
        ));
    };
    let _state = lock_state(config)?;
    let pins = PinDesk::new(config.token.pin_source().map_err(StartError::Config)?, &config.state.directory);
    let token = Arc::new(Token::open(&config.token, pins)?);
    let mut records = DataObjectLedger::new(Arc::clone(&token)).read().await?;
    let ours = format!("{} ", config.signer.id);
    records.retain(|record| record.label.starts_with(&ours));
    let standing = Standing::fold(&config.signer.id, records.clone())?;
    Marker::new(&config.state.directory, &token.identity().serial, None).compare(&standing)?;
    let unusable = |source| StartError::LedgerFile { path: path.clone(), source };
    let file = FileLedger::open(path).map_err(unusable)?;
    let there = file.read().await?;
    if let Some(foreign) = there.iter().find(|record| !records.contains(record)) {
        let what = format!("{:?} is in it and not on the token: it is a ledger of its own", foreign.label);
        return Err(unusable(std::io::Error::other(what)));
    }
    for record in records.iter().filter(|record| !there.contains(record)) {
        file.append(record.clone()).await?;
    }
    token.close()?;
    Ok(records.len())
}

/// SoftHSM2 without its configuration shows no tokens, or does not begin at all: that does not pass by
/// itself, unlike an HSM that is out of reach.
fn explain(config: &Config, error: token::Error) -> StartError {
    const VARIABLE: &str = "SOFTHSM2_CONF";
    let is_softhsm = config.token.module.file_name().is_some_and(|name| name.to_string_lossy().contains("softhsm"));
    if !is_softhsm || !matches!(error, token::Error::Initialize { .. } | token::Error::NoToken { .. }) {
        return error.into();
    }
    if config.token.environment.iter().any(|entry| entry.starts_with(&format!("{VARIABLE}="))) {
        return error.into();
    }
    let what = match std::env::var_os(VARIABLE) {
        None => "it is not set".to_owned(),
        Some(path) => match std::fs::read(&path) {
            Ok(_) => return error.into(),
            Err(why) => format!("{} cannot be read ({why})", Path::new(&path).display()),
        },
    };
    StartError::SoftHsmConfiguration { error: Box::new(error), what }
}

fn ledger(config: &Config, token: &Arc<Token>) -> Result<Arc<dyn Ledger>, StartError> {
    Ok(match &config.ledger {
        LedgerConfig::Token {} => Arc::new(DataObjectLedger::new(Arc::clone(token))),
        LedgerConfig::File { path } => {
            Arc::new(FileLedger::open(path).map_err(|source| StartError::LedgerFile { path: path.clone(), source })?)
        }
    })
}

/// The standbys, of which none is opened yet: a start does not wait for them.
fn standbys(config: &Config) -> Result<Vec<Standby>, StartError> {
    let made = config.standby.iter().zip(1..);
    made.map(|(standby, number)| Standby::new(number, standby, &config.state.directory).map_err(StartError::Config))
        .collect()
}

/// The appliance, ready to serve.
pub struct App {
    pub service: Arc<Service>,
    authn: Arc<Authn>,
    _state: DirectoryLock,
}

impl App {
    /// Puts everything together. `asker` decides whether an empty token gets its first key.
    pub async fn build(config: &Config, asker: &Asker, clock: Clock) -> Result<Self, StartError> {
        config.check().map_err(StartError::Config)?;
        let authn = Arc::new(Authn::open(config.auth.as_ref())?);
        let state = lock_state(config)?;
        let (approvals, once) = remembered_requests(config)?;
        let maintenance = maintenance(config)?;
        let mut opened = Opened::open(config).await?;
        if opened.standing.is_empty() {
            opened = reread_before_first_key(opened, asker, config).await?;
        }
        // Keys that were generated and never active: making the first one was cut short.
        let never_active = opened.standing.keys().all(|key| key.activated_at.is_none());
        let may_make = asker.may_on(&opened.token.identity().serial);
        let first_key_wanted = never_active && may_make;
        opened.check_active_key().await?;
        let metrics = Arc::new(Metrics::new().map_err(|error| StartError::Metrics(error.to_string()))?);
        publish_zeros(&metrics);
        let audit_keys = audit_keys(config, &opened.token).await?;
        let public_keys: Vec<_> = audit_keys.iter().map(|key| key.public_key().clone()).collect();
        let SharedState { nonces, fleet, limits, pool } = shared_state(config, &clock).await?;
        let blocks = Blocks::open(&config.state.directory, clock.now()).map_err(service::Error::from)?;
        let limits = Limits::new(config.limits.clone(), blocks, limits);
        let memory = Memory::load(&config.state.directory, &public_keys)
            .map_err(|source| StartError::State { path: config.state.directory.join("audit-seen.json"), source })?;
        let origin = origin(config, &public_keys);
        let trail = Audit::open(audit::Opening {
            config: &config.audit,
            source: &source(config),
            keys: &public_keys,
            remembered: remembered(&memory, fleet.as_ref(), &origin).await?,
            copies: copies(config, pool, &metrics)?,
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
        })?;
        let audit::Opened { audit, closings, index, accepted: accepted_trail } = trail;
        // A log never signs what contradicts its earlier heads: what was accepted is a new log.
        let origin = if accepted_trail { renamed(config, clock.now()) } else { origin };
        let checkpoints = Checkpoints::new(origin, &config.audit, 0, closings);
        let line = opened.line();
        let token = opened.token;
        let ledger = ledger(config, &token)?;
        let mut revoked_before = opened.marker.revoked()?;
        let mut accepted = opened.accepted;
        if !opened.marker.exists() {
            // The state directory was lost: the trail still knows which keys were revoked.
            let seen = revoked_by_the_trail(config, &opened.standing)?;
            let witness = format!("the audit trail in {}", config.audit.directory.display());
            accepted |= opened.marker.compare_with(&seen, &witness, &opened.standing)?;
            revoked_before.extend(seen.revoked);
        }
        if let Some(seen) = fleet.remembered().await? {
            accepted |= opened.marker.compare_with(&seen, "the fleet's memory in Redis", &opened.standing)?;
            revoked_before.extend(seen.revoked);
        }
        let keyring = Keyring::load(config.signer.id.clone(), ledger, opened.marker, config.fleet.lease).await?;
        let service = Service {
            signer: config.signer.clone(),
            policy: Policy {
                key: config.key_policy.clone(),
                settle_time: config.fleet.settle_time(),
                clock_skew: config.nonce.clock_skew,
                nonce_window: config.nonce.window,
                client_nonce_window: config.nonce.accept_client_nonces.then_some(config.nonce.client_nonce_window),
                redis_clock_warning: config.nonce.redis_clock_warning,
                patience: config.token.call_deadline,
                audit_warn_below: config.audit.warn_below_bytes,
            },
            keyring,
            fleet,
            instance: instance(config),
            nonces,
            limits,
            audit,
            checkpoints,
            index,
            witness: Witness::new(memory),
            tokens: Tokens::new(Arc::clone(&token), line, standbys(config)?, &config.failover),
            token,
            clock,
            metrics,
            last_probe: LastProbe::default(),
            leaving: AtomicBool::new(false),
            maintenance,
            denials: service::Denials::default(),
            readers: service::Readers::default(),
            approvals,
            once,
            gathering: Gathering::new(config.merkle.clone(), &config.token).map_err(StartError::Threads)?,
        };
        service.publish_maintenance();
        let beginning = Beginning { accepted, revoked_before, first_key_wanted, may_make, accepted_trail };
        let begun = beginning.carry_out(&service, asker).await;
        service.fleet.given_back().await;
        begun?;
        Ok(Self { service: Arc::new(service), authn, _state: state })
    }

    /// Serves until a signal or a fatal failure; `ready` is told where.
    pub async fn run_until_stopped(
        self,
        config: &Config,
        signals: Signals,
        ready: impl FnOnce(SocketAddr, SocketAddr),
    ) -> Result<ExitCode, StartError> {
        let servers = Servers::bind(&wires(config), &self.service, &self.authn)?;
        let (api, metrics) = (servers.api_address(), servers.metrics_address());
        let served = self.serve(servers, config, signals, || ready(api, metrics)).await;
        self.service.fleet.given_back().await;
        self.service.tokens.close();
        // Threads of the server may hold the service a little longer: the token does not wait for them.
        if let Err(error) = self.service.token.close() {
            tracing::warn!(%error, "the token could not be closed");
            served?.end_at_once();
        }
        served
    }

    async fn serve(
        &self,
        servers: Servers,
        config: &Config,
        signals: Signals,
        ready: impl FnOnce(),
    ) -> Result<ExitCode, StartError> {
        self.note(EventType::ServiceStarted, "start").await?;
        self.sign_trail().await;
        let manner =
            supervisor::Manner { file: config.file.clone(), refresh: config.fleet.refresh, leave: config.http.leave };
        let code = supervisor::run(servers, &self.service, signals, manner, ready).await;
        if code == ExitCode::Success {
            self.note(EventType::ServiceStopped, "stop").await?;
            self.sign_trail().await;
        } else if self.service.token.is_stuck() {
            self.service.note_stuck_token().await;
        }
        Ok(code)
    }

    /// Has the trail's head signed, and tells the fleet. What does not succeed is tried again later.
    async fn sign_trail(&self) {
        if let Err(error) = self.service.checkpoint().await {
            tracing::warn!(%error, "the audit trail's head could not be signed");
        }
        if let Err(error) = self.service.witness_round().await {
            tracing::warn!(%error, "the fleet was not told of the audit trail's head");
        }
    }

    async fn note(&self, kind: EventType, action: &'static str) -> Result<(), StartError> {
        let service = &self.service;
        let event = Event::of_service(kind, action, "verification-signer", service.clock.now());
        service.audit.record(event).await.map_err(service::Error::from)?;
        Ok(())
    }
}

/// What is done before anything is served.
struct Beginning {
    /// A ledger that does not continue what was seen is taken over.
    accepted: bool,
    revoked_before: BTreeSet<String>,
    first_key_wanted: bool,
    may_make: bool,
    accepted_trail: bool,
}

impl Beginning {
    async fn carry_out(self, service: &Service, asker: &Asker) -> Result<(), service::Error> {
        let actor = &Actor::program(asker.name());
        if self.accepted {
            service.take_over_ledger(&self.revoked_before).await?;
        } else {
            service.keyring.end_acceptance();
        }
        if self.first_key_wanted {
            let id = service.make_first_key(service.tokens.line(), actor).await?;
            tracing::info!(key_id = %id, "the first key is active");
        }
        service.choose_audit_key(self.may_make, actor).await?;
        // A standby that cannot have its key now is no reason not to start: it is said, and tried at the next one.
        service.make_first_keys(asker).await;
        if self.accepted_trail {
            service.accept_trail().await?;
        }
        Ok(())
    }
}

/// Requests that wait for approval, and those that must not be done twice.
fn remembered_requests(config: &Config) -> Result<(Arc<Approvals>, Arc<Once>), StartError> {
    let directory = &config.state.directory;
    let (approvals, keys) = (directory.join("approvals.json"), directory.join("idempotency"));
    let rules = config.approvals.clone();
    let waiting = Approvals::open(rules, &approvals).map_err(|source| StartError::State { path: approvals, source })?;
    let once = Once::open(&keys).map_err(|source| StartError::State { path: keys, source })?;
    Ok((Arc::new(waiting), once))
}

/// Whether an operator has taken this appliance out of service.
fn maintenance(config: &Config) -> Result<Maintenance, StartError> {
    let path = config.state.directory.join("maintenance.json");
    let found = Maintenance::open(&path).map_err(|source| StartError::State { path, source })?;
    if let Some(pause) = found.pause() {
        tracing::warn!("{pause}");
    }
    Ok(found)
}

fn wires(config: &Config) -> Wires<'_> {
    Wires { http: &config.http, tls: config.tls.as_ref(), metrics: &config.metrics }
}

/// The audit keys on the token. Where the trail has been signed there must be one, so it is looked
/// for more than once: a token that others are logging in to can look empty for a moment.
async fn audit_keys(config: &Config, token: &Token) -> Result<Vec<AuditKey>, StartError> {
    const PAUSE: Duration = Duration::from_millis(150);
    let directory = &config.audit.directory;
    let was_signed = audit::was_signed(directory);
    for _ in 0..3 {
        let found = token.audit_keys(&config.signer.id).await?;
        if !found.is_empty() || !was_signed {
            return Ok(found);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(StartError::AuditKeyMissing { path: directory.clone() })
}

/// The log's name: the one that it has, unless the configuration names another.
fn origin(config: &Config, keys: &[PublicKey]) -> String {
    let known = audit::known_origin(&config.audit.directory, keys);
    let base = base_origin(config);
    match known {
        Some(known) if config.audit.origin.is_none() || known.starts_with(&base) => known,
        Some(_) | None => base,
    }
}

fn base_origin(config: &Config) -> String {
    config.audit.origin.clone().unwrap_or_else(|| config.audit.new_origin(config.signer.id.as_str(), &host()))
}

/// The name of a log that was accepted although it does not continue the one before.
fn renamed(config: &Config, now: Timestamp) -> String {
    format!("{}/{}", base_origin(config), now.to_string().replace([':', '-'], ""))
}

/// What others remember of this log: the state directory, Redis, and the other appliances.
async fn remembered(memory: &Memory, fleet: &dyn Fleet, origin: &str) -> Result<Vec<(String, Checkpoint)>, StartError> {
    let own = memory.last(origin).map(|seen| (memory.path().display().to_string(), seen));
    let asking = fleet::Handed { origin: origin.to_owned(), ..fleet::Handed::default() };
    let received = fleet.exchange(&asking).await?;
    let head = received.head.map(|note| ("the fleet's memory in Redis".to_owned(), note));
    let told = received.answers.into_iter().chain(head);
    // What does not verify is nobody's word.
    let believed = told.filter_map(|(who, note)| Some((who, memory.open(&note)?)));
    Ok(own.into_iter().chain(believed.filter(|(_, seen)| seen.origin == origin)).collect())
}

fn lock_state(config: &Config) -> Result<DirectoryLock, StartError> {
    let path = &config.state.directory;
    let unusable = |source| StartError::State { path: path.clone(), source };
    if !path.is_dir() {
        durable::private_directory(path).map_err(unusable)?;
    }
    durable::lock_directory(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => StartError::StateLocked { path: path.clone() },
        _ => unusable(error),
    })
}

/// Looks again through a freshly initialised module, twice, with time between: a token that
/// others are logging in to can look empty to one reader for a moment.
async fn reread_before_first_key(mut opened: Opened, asker: &Asker, config: &Config) -> Result<Opened, StartError> {
    const SETTLE: Duration = Duration::from_millis(150);
    for _ in 0..2 {
        opened.permit_first_key(asker, config).await?;
        opened.token.close()?;
        tokio::time::sleep(SETTLE).await;
        opened = Opened::open(config).await?;
        if !opened.standing.is_empty() {
            // Another appliance has made a key meanwhile, or the first reading was wrong.
            return Ok(opened);
        }
    }
    opened.permit_first_key(asker, config).await?;
    Ok(opened)
}

/// What the fleet remembers in Redis, where there is one.
pub async fn fleet_memory(config: &Config) -> Result<Option<Seen>, StartError> {
    let Some(redis) = &config.redis else { return Ok(None) };
    let pool = Arc::new(Pool::new(redis, &config.signer.id)?);
    Ok(RedisFleet::new(pool, &config.signer.id, &instance(config)).remembered().await?)
}

/// Keys of this ledger that the audit trail names as revoked.
pub fn revoked_by_the_trail(config: &Config, standing: &Standing) -> Result<Seen, StartError> {
    let directory = &config.audit.directory;
    let named = audit::revoked_keys(directory)
        .map_err(|source| audit::OpenError::Directory { path: directory.clone(), source })?;
    let revoked = standing.keys().filter(|key| named.contains(&key.id.to_string()));
    Ok(Seen { revoked: revoked.map(|key| key.public_key.fingerprint()).collect(), ..Seen::default() })
}

/// What the appliances of a fleet have together; of a single one, its own.
struct SharedState {
    nonces: Arc<dyn nonce::Store>,
    fleet: Arc<dyn Fleet>,
    limits: Option<limits::Shared>,
    pool: Option<Arc<Pool>>,
}

/// Who gets copies of the audit records.
fn copies(config: &Config, pool: Option<Arc<Pool>>, metrics: &Metrics) -> Result<audit::Copies, StartError> {
    let mut copies = audit::Copies::default();
    let dropped = |receiver: &str| metrics.audit_copies_dropped.with_label_values(&[receiver]);
    if config.audit.journald {
        let missed = dropped("journald");
        let received = copies.add(missed.clone());
        audit::journald::start(Path::new(audit::journald::SOCKET), received, missed).map_err(StartError::Copies)?;
    }
    if let Some(pool) = pool.filter(|_| config.audit.redis_stream_length > 0) {
        let missed = dropped("redis");
        let mut received = copies.add(missed.clone());
        let length = config.audit.redis_stream_length;
        let stream = RecordStream::new(pool, &config.signer.id, &instance(config), length);
        tokio::spawn(async move {
            while let Some(lines) = received.recv().await {
                if stream.add(&lines).await.is_err() {
                    missed.inc_by(audit::records(&lines));
                }
            }
        });
    }
    Ok(copies)
}

/// Where nonces and the lock on lifecycle operations are: in Redis when one is configured, else in
/// this process. A Redis that is configured and cannot be used is a refusal, never a fallback.
async fn shared_state(config: &Config, clock: &Clock) -> Result<SharedState, StartError> {
    let Some(redis) = &config.redis else {
        let nonces = Arc::new(MemoryStore::new(config.nonce.clone(), clock.now()));
        return Ok(SharedState { nonces, fleet: Arc::new(Single::default()), limits: None, pool: None });
    };
    let pool = Arc::new(Pool::new(redis, &config.signer.id)?);
    let store = RedisStore::connect(Arc::clone(&pool), config.nonce.clone(), &config.signer.id, clock.clone()).await?;
    let limits = limits::Shared::new(Arc::clone(&pool), &config.signer.id);
    let fleet = Arc::new(RedisFleet::new(Arc::clone(&pool), &config.signer.id, &instance(config)));
    Ok(SharedState { nonces: Arc::new(store), fleet, limits: Some(limits), pool: Some(pool) })
}

/// Counters that alerts ask about are there from the first scrape on, not from the first event.
fn publish_zeros(metrics: &Metrics) {
    for kind in AttestationType::ALL {
        metrics.sign_latency.with_label_values(&[kind.as_str()]);
        for status in ["success", "failure"] {
            metrics.sign_requests.with_label_values(&[kind.as_str(), status]);
        }
    }
    for severity in [Severity::Warning, Severity::Critical] {
        metrics.audit_events.with_label_values(&[EventType::SecurityAlert.as_str(), severity.as_str()]);
    }
    for receiver in ["journald", "redis"] {
        metrics.audit_copies_dropped.with_label_values(&[receiver]);
    }
    for operation in Operation::ALL {
        metrics.break_glass.with_label_values(&[operation.as_str()]);
    }
    for refusal in nonce::Refusal::ALL {
        metrics.nonce_rejected.with_label_values(&[refusal.as_str()]);
    }
    for limit in ["address", "client"] {
        metrics.ratelimit_checks.with_label_values(&[limit, "refused"]);
        for reason in ["rate", "block"] {
            metrics.ratelimit_blocked.with_label_values(&[limit, reason]);
        }
    }
    for reason in ["operator", "abuse_score"] {
        metrics.ratelimit_bans.with_label_values(&[reason]);
    }
    for kind in ["client", "address", "subject"] {
        metrics.abuse_score.with_label_values(&[kind]).set(0.0);
    }
    for kind in service::Error::COUNTED {
        metrics.signer_errors.with_label_values(&[kind]);
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// `<signer>@<host>:<port of the API>`: appliances on one host differ in the port, or in the process.
fn instance(config: &Config) -> String {
    let distinction = match config.http.listen.port() {
        0 => std::process::id(),
        port => u32::from(port),
    };
    format!("{}@{}:{distinction}", config.signer.id, host())
}

fn source(config: &Config) -> Source {
    Source {
        service: "verification-signer",
        component: "signer",
        instance: instance(config),
        version: env!("CARGO_PKG_VERSION"),
        host: host(),
    }
}
