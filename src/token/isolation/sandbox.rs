//! What the process that holds the module gives up before it loads it. Core dumps and being looked into
//! by its own user went first, as in every process of this program ([`crate::secret`]); the appliance's own
//! descriptors were never passed on (all are opened with O_CLOEXEC; what was left open by whoever started
//! the appliance is), and of the environment only what the configuration names.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::net::UnixStream},
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
