//! What operators do every day, over the appliance's Unix socket: tables for people, `--json` for programs.
//! Nothing here knows the token or the state: the appliance decides, refuses and records, as for any caller.

mod approvals;
mod ask;
mod audit;
mod blocks;
mod failure;
mod keys;
mod maintenance;
mod nonces;
mod paint;
mod progress;
mod revoke;
mod rotate;
mod session;
mod sign_test;
mod status;
mod value;
mod wire;

use clap::Subcommand;

pub(super) use self::{
    ask::Consent,
    audit::{Rotate as AuditRotate, Search as AuditSearch},
    session::PACKAGED_SOCKET,
};
use self::{
    failure::Failure,
    session::{Connection, Session},
};
use crate::exit_code::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Everything at once: health, keys on a time line, what waits, warnings. Exit code 69: nothing can be signed.
    Status(Look),
    /// The keys, or all about one.
    Keys(keys::Options),
    /// Make a new key and sign with it from now on; the old one verifies until the overlap ends.
    Rotate(rotate::Rotate),
    /// End the overlap of a rotation.
    Complete(rotate::Complete),
    /// Go back to the old key, while the rotation's overlap runs.
    Cancel(rotate::Cancel),
    /// The rotations, newest first.
    Rotations(Look),
    /// Withdraw a key: when this returns, no appliance signs with it, and what it signed is refused.
    Revoke(revoke::Revoke),
    /// A key is compromised: revoke it, make a new one, sign with that. Safe to repeat.
    Emergency(revoke::Emergency),
    /// Sign and verify a canary in the token; nothing is released.
    SignTest(Look),
    /// How full the nonce store is, and forgetting what is over.
    #[command(subcommand)]
    Nonces(nonces::Command),
    /// Addresses, clients and subjects that are shut out.
    #[command(subcommand)]
    Blocks(blocks::Command),
    /// Requests that wait for the approval of others.
    #[command(subcommand)]
    Approvals(approvals::Command),
    /// Take this appliance out of service, and put it back.
    #[command(subcommand)]
    Maintenance(maintenance::Command),
}

/// A command that needs nothing but a way to the appliance.
#[derive(Debug, clap::Args)]
pub(super) struct Look {
    #[command(flatten)]
    connection: Connection,
}

pub(super) fn run(command: &Command) -> Result<ExitCode, ExitCode> {
    match command {
        Command::Status(options) => talk(&options.connection, status::run),
        Command::Keys(options) => talk(&options.connection, |session| keys::run(options, session)),
        Command::Rotate(options) => talk(&options.change.connection, |session| rotate::rotate(options, session)),
        Command::Complete(options) => talk(&options.change.connection, |session| rotate::complete(options, session)),
        Command::Cancel(options) => talk(&options.change.connection, |session| rotate::cancel(options, session)),
        Command::Rotations(options) => talk(&options.connection, rotate::list),
        Command::Revoke(options) => talk(&options.change.connection, |session| revoke::revoke(options, session)),
        Command::Emergency(options) => talk(&options.change.connection, |session| revoke::emergency(options, session)),
        Command::SignTest(options) => talk(&options.connection, sign_test::run),
        Command::Nonces(command) => talk(command.connection(), |session| nonces::run(command, session)),
        Command::Blocks(command) => talk(command.connection(), |session| blocks::run(command, session)),
        Command::Approvals(command) => talk(command.connection(), |session| approvals::run(command, session)),
        Command::Maintenance(command) => talk(command.connection(), |session| maintenance::run(command, session)),
    }
}

/// Asks whoever types a command that is not carried out by the appliance.
pub(super) fn ask(consent: &Consent, command: &'static str, about: &str) -> Result<(), ExitCode> {
    consent.obtain(command, about).map_err(|failure| failure.report(None))
}

/// `audit search`, beside the commands that read the trail's files themselves.
pub(super) fn search(options: &AuditSearch) -> Result<ExitCode, ExitCode> {
    talk(&options.connection, |session| audit::search(options, session))
}

/// `audit rotate`
pub(super) fn rotate_trail(options: &AuditRotate) -> Result<ExitCode, ExitCode> {
    talk(&options.connection, audit::rotate)
}

/// Finds the appliance, has the command carried out, and says what went wrong.
fn talk(connection: &Connection, command: impl FnOnce(&Session) -> Result<(), Failure>) -> Result<ExitCode, ExitCode> {
    let session = Session::open(connection).map_err(|failure| failure.report(None))?;
    command(&session).map(|()| ExitCode::Success).map_err(|failure| failure.report(Some(&session)))
}
