//! The directories: what the appliance remembers, and the audit trail.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use rustix::fs::{Access, FlockOperation};

use super::finding::Finding;
use crate::{config::Config, durable};

const MADE_BY: &str = "make it, owned by the service's user: install -d -m 0700 -o USER DIRECTORY";

/// The state directory, and whether an appliance runs with it.
pub(super) fn state(config: &Config) -> (Vec<Finding>, bool) {
    let path = &config.state.directory;
    let finding = match directory(path) {
        Ok(meta) if meta.mode() & 0o077 != 0 => Finding::warn(
            "state",
            format!("{}: others may enter it (mode {:04o})", path.display(), meta.mode() & 0o7777),
            "chmod 0700 it",
        ),
        Ok(_) => Finding::ok("state", format!("{}: there, writable", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::warn(
            "state",
            format!("{}: not there yet; `serve` makes it", path.display()),
            "if an appliance has run here before, find out who took it away: it remembers the ledger",
        ),
        Err(error) => Finding::fail("state", format!("{}: {error}", path.display()), MADE_BY),
    };
    let (appliance, runs) = match is_locked(path) {
        Ok(true) => (Finding::ok("appliance", "runs with this state directory"), true),
        Ok(false) => (Finding::ok("appliance", "does not run"), false),
        // Then it is treated as one that runs.
        Err(error) => {
            let found = format!("whether it runs cannot be seen: {}: {error}", path.display());
            (Finding::warn("appliance", found, "run this as the service's user, or as root"), true)
        }
    };
    (vec![finding, appliance], runs)
}

/// Whether another process holds the lock. The file is not made for it, and the lock is given back at
/// once.
fn is_locked(directory: &Path) -> io::Result<bool> {
    let file = match fs::File::open(directory.join(".lock")) {
        Ok(file) => file,
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// The audit directory, and the room in it.
pub(super) fn audit(config: &Config) -> Vec<Finding> {
    let (path, rules) = (&config.audit.directory, &config.audit);
    if let Err(error) = directory(path) {
        return vec![Finding::fail("audit", format!("{}: {error}", path.display()), MADE_BY)];
    }
    let mebibytes = |bytes: u64| bytes >> 20;
    let room = match durable::free_space(path) {
        Err(error) => Finding::fail("audit-room", format!("{}: {error}", path.display()), "see to the file system"),
        Ok(free) if free < rules.stop_below_bytes.saturating_add(rules.reserve_bytes) => Finding::fail(
            "audit-room",
            format!("{} MiB free: signing stops, or soon will", mebibytes(free)),
            "make room, or give the trail a file system of its own; closed files may go once they were exported",
        ),
        Ok(free) if free < rules.warn_below_bytes => Finding::warn(
            "audit-room",
            format!("{} MiB free, less than audit.warn_below_bytes", mebibytes(free)),
            "make room before signing stops (audit.stop_below_bytes)",
        ),
        Ok(free) => Finding::ok("audit-room", format!("{} MiB free", mebibytes(free))),
    };
    vec![Finding::ok("audit", format!("{}: there, writable", path.display())), room]
}

/// A directory that this user may enter and write to.
fn directory(path: &Path) -> io::Result<fs::Metadata> {
    let meta = fs::metadata(path)?;
    if !meta.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK)?;
    Ok(meta)
}
