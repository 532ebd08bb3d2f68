//! Starting the process that holds the module, and ending it.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// The hidden subcommand that is that process.
pub(super) const SUBCOMMAND: &str = "hold-token";

/// The descriptors before it are standard input, output and error.
const FIRST_AFTER_STANDARD: i32 = 3;

/// How long the end of a killed process is waited for: one that sleeps in the kernel cannot be killed.
const REAPING: Duration = Duration::from_secs(1);

/// A process that can be killed until it was waited for.
pub(super) struct Process(Mutex<Option<Child>>);

impl Process {
    /// Starts this very program once more, with our socket as its standard input. What it inherits of the
    /// environment is what `environment` names, with our value or with the one that is given there.
    pub fn start(environment: &[String]) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let passed = environment.iter().filter_map(|entry| match entry.split_once('=') {
            Some((name, value)) => Some((name, value.into())),
            None => Some((entry.as_str(), std::env::var_os(entry)?)),
        });
        // Ours never are passed on; what whoever started us has left open would be.
        close_fds::set_fds_cloexec_threadsafe(FIRST_AFTER_STANDARD, &[]);
        // The file that runs here, even when another has been installed in its place since.
        let child = Command::new("/proc/self/exe")
            .arg0(own_name())
            .arg(SUBCOMMAND)
            .env_clear()
            .envs(passed)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        Ok((Self(Mutex::new(Some(child))), ours))
    }

    /// Kills it, wherever it is.
    pub fn kill(&self) {
        if let Some(child) = self.0.lock().as_mut() {
            // It fails when it has ended already.
            let _ = child.kill();
        }
    }

    /// Kills it if it has not ended, and says how it did.
    pub fn end(&self) -> String {
        let Some(mut child) = self.0.lock().take() else { return "it was killed".into() };
        let _ = child.kill();
        let latest = Instant::now() + REAPING;
        while Instant::now() < latest {
            match child.try_wait() {
                Ok(Some(status)) => return status.to_string(),
                Ok(None) => thread::sleep(Duration::from_millis(1)),
                Err(error) => return error.to_string(),
            }
        }
        // Whenever the kernel lets go of it.
        thread::spawn(move || child.wait());
        "it sleeps in the kernel and cannot be killed".into()
    }
}

/// The name this program was called by, for `ps`.
fn own_name() -> OsString {
    let called = std::env::args_os().next().unwrap_or_default();
    Path::new(&called).file_name().map_or_else(|| "verification-signer".into(), ToOwned::to_owned)
}
