//! `[audit]` of the configuration file.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{OpenError, checkpoint::is_name};

/// Where the trail is, when its files are closed, and what it needs of the disk.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where `audit.log` and its rotated segments live. Made by the package, or by `dev`.
    pub directory: PathBuf,
    /// The log's name in checkpoints; left out: made of signer, host and directory when the trail begins.
    pub origin: Option<String>,
    /// `<records>:<root>` of a trail that does not continue what peers or Redis remember, and that an
    /// operator accepts all the same.
    pub accept_checkpoint: Option<String>,
    /// How often the trail's head is signed while records are written.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub checkpoint_interval: Duration,
    /// A file that has grown to this size is closed.
    pub rotate_bytes: u64,
    /// A file that was begun so long ago is closed.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub rotate_age: Duration,
    /// Compress closed files.
    pub compress: bool,
    /// Closed files are removed when their last record is this old. Left out: never.
    #[serde(deserialize_with = "crate::duration::optional")]
    pub retention: Option<Duration>,
    /// Remove files that were never exported as well.
    pub remove_unexported: bool,
    /// Room on the disk that is kept for the records of security staff once it is full.
    pub reserve_bytes: u64,
    /// Signing stops when less is free.
    pub stop_below_bytes: u64,
    /// Health warns when less is free.
    pub warn_below_bytes: u64,
    /// Copy records to journald.
    pub journald: bool,
    /// Copy records to a stream in Redis of about so many records. 0: no stream.
    pub redis_stream_length: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/var/log/virtengine/audit"),
            origin: None,
            accept_checkpoint: None,
            checkpoint_interval: Duration::from_secs(60),
            rotate_bytes: 1 << 30,
            rotate_age: Duration::from_secs(24 * 3600),
            compress: false,
            retention: None,
            remove_unexported: false,
            reserve_bytes: 16 << 20,
            stop_below_bytes: 4 << 20,
            warn_below_bytes: 256 << 20,
            journald: false,
            redis_stream_length: 0,
        }
    }
}

impl Config {
    /// The rules that the types do not hold.
    pub fn check(&self) -> Result<(), String> {
        if self.origin.as_deref().is_some_and(|origin| !is_name(origin) || origin.len() > 255) {
            return Err("audit.origin must have 1 to 255 characters, and no space and no plus".into());
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&self.checkpoint_interval) {
            return Err("audit.checkpoint_interval must be between 1s and 1h".into());
        }
        if self.rotate_bytes < 4096 {
            return Err("audit.rotate_bytes must be at least 4096".into());
        }
        if self.rotate_age < Duration::from_secs(1) {
            return Err("audit.rotate_age must be at least 1s".into());
        }
        if !(1 << 16..=1 << 34).contains(&self.reserve_bytes) {
            return Err("audit.reserve_bytes must be between 65536 and 17179869184".into());
        }
        if self.warn_below_bytes < self.stop_below_bytes {
            return Err("audit.warn_below_bytes must not be below audit.stop_below_bytes".into());
        }
        Ok(())
    }

    /// Whether the trail could be opened here.
    pub fn check_directory(&self) -> Result<(), OpenError> {
        let unusable = |source| OpenError::Directory { path: self.directory.clone(), source };
        rustix::fs::access(&self.directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .map_err(|errno| unusable(errno.into()))
    }

    /// The name of a new log here: `<signer>/<host>/<directory>`, what a name cannot hold escaped.
    #[must_use]
    pub fn new_origin(&self, signer: &str, host: &str) -> String {
        const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
        let mut name = format!("{signer}/{host}");
        for byte in self.directory.to_string_lossy().bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'/') {
                name.push(char::from(byte));
            } else {
                name.extend(['%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
        name
    }
}
