//! What the process that holds the module gives up before it loads it. Core dumps and being looked into
//! by its own user went first, as in every process of this program ([`crate::secret`]); the appliance's own
//! descriptors were never passed on, nor what whoever started the appliance had left open, and of the
//! environment only what the configuration names. By Landlock it sends no
//! signal to other processes, looks into none (a domain's boundary of ptrace), and where the configuration
//! says where the module writes, writes nowhere else: not into the audit trail, for one.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
};

use landlock::{
    ABI, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
    path_beneath_rules,
};
use rustix::process::Signal;

/// Takes the socket from standard input, where the parent has put it, and gives up the rest.
pub(super) fn enter() -> io::Result<UnixStream> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Not a socket: somebody has typed the command.
    socket.peer_addr()?;
    // The module shall find nothing where the frames come in.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    // Whatever the module executes gains nothing by it.
    rustix::thread::set_no_new_privs(true)?;
    // Without its parent nobody would stop it. That has ended already when the socket has.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_name(c"token-process")?;
    Ok(socket)
}

/// Closes the process in for good: this thread, and those that it starts from now on. A kernel that does
/// not keep signals apart (before 6.12) is taken as it is; one that cannot keep the module to `writable`
/// (before 5.13) is refused.
pub(super) fn close_in(writable: Option<&[PathBuf]>) -> Result<(), String> {
    if let Some(missing) = writable.unwrap_or_default().iter().find(|path| !path.exists()) {
        return Err(format!("there is no {}", missing.display()));
    }
    restrict(writable).map_err(|error| error.to_string())
}

fn restrict(writable: Option<&[PathBuf]>) -> Result<(), RulesetError> {
    let rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort).scope(Scope::Signal)?;
    let Some(writable) = writable else { return rules.create()?.restrict_self().map(drop) };
    let writing = AccessFs::from_write(ABI::V1);
    let rules = rules.set_compatibility(CompatLevel::HardRequirement).handle_access(writing)?;
    let rules = rules.set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::Truncate)?;
    rules.create()?.add_rules(path_beneath_rules(writable, writing | AccessFs::Truncate))?.restrict_self().map(drop)
}
