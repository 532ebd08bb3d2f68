//! Room on the disk: a reserve that is taken at start, and given up when everything else is used, so
//! that what security staff do can still be recorded.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use crate::durable;

const RESERVE: &str = "audit.reserve";

/// The room that is kept, and how much must be free beside it.
pub struct Space {
    directory: PathBuf,
    reserve_bytes: u64,
    stop_below: u64,
}

impl Space {
    pub fn new(directory: &Path, reserve_bytes: u64, stop_below: u64) -> Self {
        Self { directory: directory.to_owned(), reserve_bytes, stop_below }
    }

    /// Takes the reserve, if there is room for it.
    pub fn take_reserve(&self) -> io::Result<()> {
        durable::reserve(&self.directory.join(RESERVE), self.reserve_bytes)
    }

    /// Gives it up.
    pub fn give_up_reserve(&self) {
        match std::fs::remove_file(self.directory.join(RESERVE)) {
            Ok(()) => tracing::warn!("the reserve of the audit trail is given up for the records of security staff"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::error!(%error, "the reserve of the audit trail could not be given up"),
        }
    }

    /// What is free now.
    pub fn free(&self) -> io::Result<u64> {
        durable::free_space(&self.directory)
    }

    /// Whether that is too little to go on.
    pub fn is_short(&self, free: u64) -> bool {
        free < self.stop_below
    }
}

/// Whether an error means that there is no room.
pub fn is_full(error: &io::Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT, Errno::FBIG].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Whether an error means that nothing may be written here.
pub fn is_read_only(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ROFS.raw_os_error())
}
