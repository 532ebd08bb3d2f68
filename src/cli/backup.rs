//! `backup create`, `verify`, `drill`, and `restore`.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{block_on, refused};
use crate::{
    audit,
    backup::{self, Backup, Error},
    clock::Clock,
    config::Config,
    exit_code::ExitCode,
    key::PublicKey,
};

/// Where the package puts the configuration.
const CONFIG: &str = "/etc/verification-signer/config.toml";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make one, beside the running appliance or without it. It logs in to the token, which signs it.
    Create(Create),
    /// Verify one offline, with the public audit key alone. Exit code 65: it is not what was signed.
    Verify(Verify),
    /// Prove that one restores: into a temporary place, against the token, which is only read.
    Drill(Drill),
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// The file to make; it must not be there yet.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Leave the audit trail out: it is archived on a way of its own.
    #[arg(long)]
    without_trail: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    backup: PathBuf,
    /// The public audit key, or several, as PEM [default: what lies in the backup, which proves nothing against
    /// somebody who made it anew]
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Drill {
    #[command(flatten)]
    backup: Verify,
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    #[command(flatten)]
    backup: Verify,
    /// Where the configuration belongs; one that is there is kept, and counts.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// Go on with a backup that others know to be older: the head of its ledger, which the refusal names.
    #[arg(long, value_name = "HEAD")]
    accept_older: Option<String>,
}

pub(super) fn run(command: &Command) -> Result<ExitCode, ExitCode> {
    match command {
        Command::Create(options) => create(options),
        Command::Verify(options) => verified(options).map(|backup| {
            describe(&backup);
            println!("verified: ok");
        }),
        Command::Drill(options) => drill(options),
    }
    .map(|()| ExitCode::Success)
}

fn said(error: &Error) -> ExitCode {
    let code = match error {
        Error::Spoiled { .. } => ExitCode::Data,
        Error::Start(error) => error.exit_code(),
        Error::Io { .. } => ExitCode::Unavailable,
        Error::Older(_) | Error::Occupied(_) | Error::Refused(_) | Error::Differs(_) => ExitCode::Refused,
    };
    refused(error, code)
}

fn create(options: &Create) -> Result<(), ExitCode> {
    let config = configuration(&options.config)?;
    let (now, trail) = (Clock::system().now(), !options.without_trail);
    let made = block_on(backup::create(&options.config, &config, &options.output, trail, now)).map_err(|e| said(&e))?;
    // What cannot be read again is no backup.
    let backup = backup::verify(&options.output, Some(&made.keys)).map_err(|error| said(&error))?;
    describe(&backup);
    println!("written     {}, {} bytes", options.output.display(), made.bytes);
    for away in &made.away {
        println!("without     certificates of a token's keys: {away}");
    }
    println!("It holds no private key and no PIN: back the token up with its vendor's tools.");
    Ok(())
}

fn describe(backup: &Backup) {
    let about = &backup.about;
    println!("signer      {} on {}, {}", about.signer_id, about.host, about.created_at);
    println!("token       {}", about.token_uri);
    let (keys, revoked) = (backup.standing.keys().count(), about.seen.revoked.len());
    println!("keys        {keys}, {revoked} of them revoked");
    println!("ledger      {} changes, head {}", about.seen.ledger_records, about.seen.ledger_head);
    println!("members     {}{}", backup.members, if about.trail { "" } else { ", without the audit trail" });
}

fn verified(options: &Verify) -> Result<Backup, ExitCode> {
    let keys: Option<Vec<PublicKey>> =
        match &options.public_key {
            None => None,
            Some(path) => Some(audit::keys_from_pem(path).map_err(|error| {
                refused(&format!("the public audit key {}: {error}", path.display()), ExitCode::Usage)
            })?),
        };
    let backup = backup::verify(&options.backup, keys.as_deref()).map_err(|error| said(&error))?;
    if keys.is_none() {
        println!(
            "remark      verified with the key that lies in it: hold a copy of your own, and name it with --public-key"
        );
    }
    Ok(backup)
}

fn configuration(path: &Path) -> Result<Config, ExitCode> {
    Config::load(path).map_err(|error| refused(&error, ExitCode::Config))
}

fn report(what: &str, found: &str) {
    println!("{what:<11} {found}");
}

fn drill(options: &Drill) -> Result<(), ExitCode> {
    let backup = verified(&options.backup)?;
    let config = configuration(&options.config)?;
    block_on(backup::drill(&backup, &config, &mut report)).map_err(|error| said(&error))?;
    println!("drill: ok (this backup restores)");
    Ok(())
}

/// The configuration that is there counts; else that of the backup.
pub(super) fn restore(options: &Restore) -> Result<ExitCode, ExitCode> {
    let backup = verified(&options.backup)?;
    let config = if options.config.exists() {
        configuration(&options.config)?
    } else {
        let invalid = |why| refused(&format!("the configuration in the backup: {why}"), ExitCode::Config);
        Config::parse(backup.configuration()).map_err(invalid)?
    };
    let accepted = options.accept_older.as_deref();
    block_on(backup::restore(&backup, &options.config, &config, accepted, &mut report))
        .map_err(|error| said(&error))?;
    println!("restored: start the appliance, and compare `verification-signer status` with what you know");
    Ok(ExitCode::Success)
}
