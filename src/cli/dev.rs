//! `dev`: everything by default. A SoftHSM2 token in a state directory, made when missing and kept
//! when there; loopback only; no authentication. Never for production.

use std::{
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use secrecy::SecretString;

use super::{block_on, refused};
use crate::{
    app::{App, StartError},
    audit,
    clock::Clock,
    config::{Config, LedgerConfig, StateConfig},
    durable,
    exit_code::ExitCode,
    http, limits, nonce, redis, secret,
    service::{FleetConfig, KeyPolicy, SignerConfig, approvals, first_key::Asker, merkle},
    supervisor::Signals,
    telemetry,
    token::{self, TokenUri, provision},
};

const TOKEN_LABEL: &str = "verification-signer-dev";
const SIGNER_ID: &str = "veid-signer-dev";

/// Where distributions put SoftHSM2's module.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// A public interface: other teams' CI depends on these flags.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Where the token, its PIN and the audit trail live [default: $XDG_STATE_HOME/verification-signer/dev]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where the API listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Where the metrics listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9090")]
    metrics: SocketAddr,
    /// Keep nonces in this Redis instead of in the process.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Limit callers and block abusers, as `serve` does.
    #[arg(long)]
    limits: bool,
}

pub(super) fn run(options: &Options) -> Result<ExitCode, ExitCode> {
    telemetry::start(telemetry::Config { level: telemetry::Level::Info, format: telemetry::Format::Text });
    let config = |message: String| refused(&message, ExitCode::Config);
    for address in [options.http, options.metrics] {
        if !address.ip().is_loopback() {
            return Err(config(format!(
                "dev listens on loopback only, not on {address}: nobody is authenticated here"
            )));
        }
    }
    let state = state_directory(options.state_dir.as_deref()).map_err(config)?;
    let layout = Layout::at(&state);
    let module = MODULES.iter().map(Path::new).find(|path| path.exists()).ok_or_else(|| {
        config(format!(
            "SoftHSM2 is not installed: none of {} exists (Debian: apt-get install softhsm2)",
            MODULES.join(", ")
        ))
    })?;
    layout.prepare().map_err(|error| config(format!("state directory {}: {error}", state.display())))?;
    point_softhsm_at(&layout.softhsm_conf)?;
    let uri = token_uri(module, &layout).map_err(config)?;
    let config = configuration(options, module, uri, &layout);
    block_on(async {
        let signals = Signals::take().map_err(StartError::Signals)?;
        let app = App::build(&config, &Asker::Person { command: "dev" }, Clock::system()).await?;
        app.run_until_stopped(&config, signals, |api, metrics| {
            println!(
                "ready: API http://{api}  metrics http://{metrics}/metrics  token {}  (development only: software token, no authentication)",
                config.token.uri
            );
        })
        .await
    })
    .map_err(|error: StartError| refused(&error, error.exit_code()))
}

fn state_directory(asked: Option<&Path>) -> Result<PathBuf, String> {
    let chosen = match asked {
        Some(path) => path.to_owned(),
        None => {
            let base = std::env::var_os("XDG_STATE_HOME")
                .map(PathBuf::from)
                .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state")))
                .ok_or("neither XDG_STATE_HOME nor HOME is set: name a directory with --state-dir")?;
            base.join("verification-signer/dev")
        }
    };
    std::path::absolute(&chosen).map_err(|error| format!("{}: {error}", chosen.display()))
}

/// The files of a state directory.
struct Layout {
    root: PathBuf,
    tokens: PathBuf,
    softhsm_conf: PathBuf,
    pin: PathBuf,
    audit: PathBuf,
}

impl Layout {
    fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            tokens: root.join("tokens"),
            softhsm_conf: root.join("softhsm2.conf"),
            pin: root.join("pin"),
            audit: root.join("audit"),
        }
    }

    /// Makes what is missing; keeps what is there.
    fn prepare(&self) -> std::io::Result<()> {
        for directory in [&self.root, &self.tokens, &self.audit] {
            durable::private_directory(directory)?;
        }
        if !self.softhsm_conf.exists() {
            let text = format!(
                "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
                self.tokens.display()
            );
            durable::replace(&self.softhsm_conf, text.as_bytes())?;
        }
        Ok(())
    }
}

/// SoftHSM2 reads its configuration's path from the environment, which a running program cannot
/// change safely: so this one starts itself again, in the same process, with it set.
fn point_softhsm_at(conf: &Path) -> Result<(), ExitCode> {
    const VARIABLE: &str = "SOFTHSM2_CONF";
    if std::env::var_os(VARIABLE).is_some_and(|value| value == conf.as_os_str()) {
        return Ok(());
    }
    // By its own path, so that `ps` and `pgrep -f` show its own name.
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let error = Command::new(program).args(std::env::args_os().skip(1)).env(VARIABLE, conf).exec();
    Err(refused(&format!("cannot start again with {VARIABLE} set: {error}"), ExitCode::Unavailable))
}

/// The token of this state directory. It is made only when neither a token nor a PIN is there: a
/// PIN without its token means that the token was removed, and that is not repaired silently.
fn token_uri(module: &Path, layout: &Layout) -> Result<TokenUri, String> {
    let present = provision::present_tokens(module).map_err(|error| error.to_string())?;
    if let Some(uri) = provision::only_token(&present, TOKEN_LABEL) {
        return Ok(uri);
    }
    if !present.is_empty() || layout.pin.exists() {
        return Err(format!(
            "{} has a PIN but not exactly one token labelled {TOKEN_LABEL}: it was moved or damaged. To start over, remove the directory",
            layout.root.display()
        ));
    }
    let (user_pin, so_pin) = (random_pin()?, random_pin()?);
    save_pin(layout, &user_pin)?;
    provision::initialise_token(module, TOKEN_LABEL, &so_pin, &user_pin).map_err(|error| error.to_string())?;
    let present = provision::present_tokens(module).map_err(|error| error.to_string())?;
    provision::only_token(&present, TOKEN_LABEL).ok_or_else(|| "the new token cannot be found".into())
}

fn random_pin() -> Result<SecretString, String> {
    let mut bytes = zeroize::Zeroizing::new([0u8; 16]);
    getrandom::fill(&mut *bytes).map_err(|error| error.to_string())?;
    Ok(SecretString::from(hex::encode(*bytes)))
}

fn save_pin(layout: &Layout, pin: &SecretString) -> Result<(), String> {
    secret::to_file(&layout.pin, pin).map_err(|error| error.to_string())
}

fn configuration(options: &Options, module: &Path, uri: TokenUri, layout: &Layout) -> Config {
    Config {
        signer: SignerConfig {
            id: crate::key::SignerId::parse(SIGNER_ID).expect("a valid constant"),
            name: crate::attestation::Text::new("Development signer").expect("a short constant"),
            validator_address: crate::attestation::Text::default(),
            service_endpoint: crate::attestation::Text::default(),
        },
        state: StateConfig { directory: layout.root.clone(), accept_ledger_head: None },
        token: token::Config::new(module.to_owned(), uri, layout.pin.clone()),
        standby: Vec::new(),
        failover: token::standby::FailoverConfig::default(),
        ledger: LedgerConfig::default(),
        // The token is this process's own.
        fleet: FleetConfig { single: true, ..FleetConfig::default() },
        key_policy: KeyPolicy::default(),
        merkle: merkle::Config::default(),
        nonce: nonce::Config::default(),
        limits: limits::Config { enabled: options.limits, ..limits::Config::default() },
        redis: options.redis.clone().map(|url| redis::Config { url: Some(url.into()), ..redis::Config::default() }),
        audit: audit::Config { directory: layout.audit.clone(), ..audit::Config::default() },
        http: http::Config { listen: options.http, ..http::Config::default() },
        tls: None,
        auth: None,
        approvals: approvals::Config::default(),
        metrics: http::MetricsConfig { listen: options.metrics, ..http::MetricsConfig::default() },
        log: telemetry::Config::default(),
        file: None,
    }
}
