//! Log lines: structured, to standard error, where systemd's journal takes them.

use std::{io::IsTerminal, sync::OnceLock};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// `[log]` of the configuration file.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub level: Level,
    pub format: Format,
}

/// The least severe lines that are written.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

/// How lines look.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// How this process logs.
static STARTED: OnceLock<Config> = OnceLock::new();

/// How this process logs, for a process that it starts.
#[must_use]
pub fn started() -> Config {
    STARTED.get().copied().unwrap_or_default()
}

/// Starts logging. A second call in one process changes nothing.
pub fn start(config: Config) {
    let _ = STARTED.set(config);
    // Only our own lines go below `warn`: libraries might log what we would not. cryptoki calls every
    // mechanism it does not know an error; failed calls reach us as values anyway.
    let level = match config.level {
        Level::Error => "error,cryptoki=off",
        Level::Warn => "warn,cryptoki=off",
        Level::Info => "warn,cryptoki=off,verification_signer=info",
        Level::Debug => "warn,cryptoki=off,verification_signer=debug",
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // An error here means that logging has been started already.
    let _ = match config.format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Text => builder.with_target(false).try_init(),
    };
}
