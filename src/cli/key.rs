//! `key new`, `key list`, `key revoke`: bearer keys of callers. A running appliance reads the file again
//! by itself.

use std::{path::PathBuf, time::Duration};

use super::{ConfigFile, refused};
use crate::{
    authn::{KeyFileError, Keys},
    clock::Clock,
    config::Config,
    exit_code::ExitCode,
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a key for a client of the configuration. It is shown once, on standard output.
    New {
        #[command(flatten)]
        file: ConfigFile,
        /// The client's name in [auth].
        #[arg(long, value_name = "NAME")]
        client: String,
        /// How long the key is valid.
        #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = humantime::parse_duration)]
        valid_for: Duration,
    },
    /// List keys: id, client, when they end.
    List(ConfigFile),
    /// Take a key out.
    Revoke {
        #[command(flatten)]
        file: ConfigFile,
        /// The key's id: the part between the two underscores.
        #[arg(value_name = "ID")]
        id: String,
    },
}

pub(super) fn run(command: &Command) -> Result<ExitCode, ExitCode> {
    match command {
        Command::New { file, client, valid_for } => new(&read(file)?, client, *valid_for),
        Command::List(file) => list(&read(file)?),
        Command::Revoke { file, id } => revoke(&read(file)?, id),
    }
}

fn read(file: &ConfigFile) -> Result<Config, ExitCode> {
    Config::load(&file.config).map_err(|error| refused(&error, ExitCode::Config))
}

fn keys_file(config: &Config) -> Result<PathBuf, ExitCode> {
    let path = config.auth.as_ref().and_then(|auth| auth.keys_file.clone());
    path.ok_or_else(|| refused(&"the configuration names no auth.keys_file", ExitCode::Config))
}

fn open(config: &Config) -> Result<Keys, ExitCode> {
    Keys::open(&keys_file(config)?).map_err(|error| failed(&error))
}

fn failed(error: &KeyFileError) -> ExitCode {
    let code = match error {
        KeyFileError::TooMany { .. } | KeyFileError::Unknown(_) => ExitCode::Usage,
        KeyFileError::Io { .. } | KeyFileError::Content { .. } | KeyFileError::Row { .. } | KeyFileError::Random(_) => {
            ExitCode::Unavailable
        }
    };
    refused(error, code)
}

fn new(config: &Config, client: &str, valid_for: Duration) -> Result<ExitCode, ExitCode> {
    const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);
    let known = config.auth.as_ref().is_some_and(|auth| auth.clients.iter().any(|known| known.name == client));
    if !known {
        return Err(refused(&format!("auth.clients has no client {client:?}"), ExitCode::Usage));
    }
    if valid_for.is_zero() || valid_for > LONGEST {
        return Err(refused(&"a key is valid for 1s to 10 years", ExitCode::Usage));
    }
    let now = Clock::system().now().truncated_to_seconds();
    let seconds = i64::try_from(valid_for.as_secs()).expect("at most ten years");
    let new = open(config)?.add(client, now, now.plus_seconds(seconds)).map_err(|error| failed(&error))?;
    println!("{}", *new.key);
    eprintln!(
        "key {} of {client}, valid until {}: keep it where only {client} can read it, it is not shown again",
        new.row.id, new.row.expires_at
    );
    Ok(ExitCode::Success)
}

fn list(config: &Config) -> Result<ExitCode, ExitCode> {
    let now = Clock::system().now();
    for row in open(config)?.rows() {
        let state = if row.expires_at > now { "valid until" } else { "expired at" };
        println!("{}  {}  {state} {}", row.id, row.client, row.expires_at);
    }
    Ok(ExitCode::Success)
}

fn revoke(config: &Config, id: &str) -> Result<ExitCode, ExitCode> {
    let row = open(config)?.revoke(id).map_err(|error| failed(&error))?;
    println!("revoked {}  {}", row.id, row.client);
    Ok(ExitCode::Success)
}
