//! The command line: one file a subcommand.

mod audit;
mod backup;
mod bench;
mod check;
mod dev;
mod doctor;
mod hold_token;
mod init;
mod key;
mod operator;
mod serve;
mod setup;
mod token;
mod verify;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{config::Config, exit_code::ExitCode, telemetry};

/// How every command ends.
const EXIT_CODES: &str = "\
Exit codes:
   0  done, or told to stop
  64  the command line is wrong, or the question was not answered with yes
  65  audit verify, backup verify: it is not what it must be
  69  the token, a directory, a port or the appliance is not usable now, or nothing can be signed
  70  the audit trail failed, so the appliance ended itself
  75  later: the change waits for the approval of others, or a limit is reached
  76  it was refused, and why is said
  77  the caller lacks the role for it
  78  somebody must change the configuration, a file that it names, the PIN or the token first";

/// HSM-first signing appliance for VEID attestations.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true, after_help = EXIT_CODES)]
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
    /// Search the audit trail, close its file, verify it, export it.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Measure this machine and its token: the bare token, then everything around it, by layer.
    Bench(bench::Options),
    /// Verify attestations offline, with public keys alone. Exit code 65: one of them is not valid.
    Verify(verify::Options),
    /// Make, verify and try out backups of everything but the token.
    #[command(subcommand)]
    Backup(backup::Command),
    /// Put a backup where nothing is yet, beside the token whose it is.
    Restore(backup::Restore),
    #[command(flatten)]
    Operator(operator::Command),
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
            Command::Bench(options) => bench::run(&options),
            Command::Verify(options) => verify::run(&options),
            Command::Backup(command) => backup::run(&command),
            Command::Restore(options) => backup::restore(&options),
            Command::Operator(command) => operator::run(&command),
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
