//! The command line: one file a subcommand.

mod audit;
mod check;
mod dev;
mod doctor;
mod hold_token;
mod init;
mod key;
mod serve;
mod setup;
mod token;
mod verify;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{config::Config, exit_code::ExitCode, telemetry};

/// HSM-first signing appliance for VEID attestations.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the appliance.
    Serve(ConfigFile),
    /// Try it out: a software token, throw-away keys, loopback only, no authentication.
    Dev(dev::Options),
    /// Read the configuration, open the token, log in, and say what would be refused.
    Check(ConfigFile),
    /// Say what is right and what is wrong around the appliance, with a remedy for each; also while it runs.
    Doctor(doctor::Options),
    /// Set the appliance up: choose the HSM, keep its PIN, write the configuration, make the first key. Where
    /// the configuration is there already, only generate and activate the first key on an empty token.
    Init(setup::Options),
    /// Look at a PKCS#11 module, or make a SoftHSM2 token.
    #[command(subcommand)]
    Token(token::Command),
    /// Bearer keys of callers: make, list, revoke.
    #[command(subcommand)]
    Key(key::Command),
    /// The process that `serve` starts to hold the PKCS#11 module.
    #[command(hide = true)]
    HoldToken,
    /// Verify or export an audit trail.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Verify attestations offline, with public keys alone. Exit code 65: one of them is not valid.
    Verify(verify::Options),
    /// Only what [`ExitCode::end_at_once`] needs.
    #[command(name = ExitCode::END, hide = true)]
    EndWith { code: u8 },
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, ExitCode> {
        let config = Config::load(&self.config).map_err(|error| refused(&error, ExitCode::Config))?;
        telemetry::start(config.log);
        Ok(config)
    }
}

impl Cli {
    /// Runs the chosen command.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Serve(file) => file.load().and_then(|config| serve::run(&config)),
            Command::Dev(options) => dev::run(&options),
            Command::Check(file) => file.load().and_then(|config| check::run(&config)),
            Command::Doctor(options) => doctor::run(&options),
            Command::Audit(command) => audit::run(&command),
            Command::Init(options) if options.config.exists() => {
                let file = ConfigFile { config: options.config };
                file.load().and_then(|config| init::run(&config))
            }
            Command::Init(options) => setup::run(&options),
            Command::Token(command) => token::run(&command),
            Command::HoldToken => hold_token::run(),
            Command::Key(command) => key::run(&command),
            Command::Verify(options) => verify::run(&options),
            Command::EndWith { code } => std::process::exit(code.into()),
        };
        result.unwrap_or_else(|code| code)
    }
}

/// Says what was refused, to the person and to the log's reader alike.
fn refused(error: &dyn std::fmt::Display, code: ExitCode) -> ExitCode {
    eprintln!("verification-signer: {error}");
    code
}

/// Runs a future on the runtime that actix-web wants on the main thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    actix_web::rt::System::new().block_on(future)
}
