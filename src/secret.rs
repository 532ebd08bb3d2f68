//! Secrets read from files: the PIN never stands in the configuration, an argument, the
//! environment or a log.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::OFlags,
    process::{DumpableBehavior, Resource, Rlimit},
};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// Longest secret file that is read.
const MAX_BYTES: usize = 4096;

/// Why a secret could not be had. Messages name the file, never its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read secret file {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write secret file {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("secret file {path} can be read by others (mode {mode:04o}): make it 0400 or 0600")]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("secret file {path} belongs to uid {owner}: it must belong to root or to the service's own user")]
    WrongOwner { path: PathBuf, owner: u32 },
    #[error("secret file {path} is empty, longer than 4096 bytes, or not UTF-8 text")]
    Content { path: PathBuf },
    /// The name is left out: it may be the secret itself, put in the wrong place.
    #[error(
        "the credential named in the configuration was not passed in: start under systemd with LoadCredential=NAME:PATH, or name a file instead"
    )]
    NoCredential,
    #[error("cannot keep secrets out of core dumps: {0}")]
    CoreDump(io::Error),
}

/// Reads a secret from a file that only its owner can read. One trailing newline is not part of it.
pub fn from_file(path: &Path) -> Result<SecretString, SecretError> {
    let file = open(path)?;
    check_private(&file, path)?;
    read(file, path)
}

/// Refuses a file that others than its owner can read. What systemd passed in, it guards itself: the
/// access list of a credential looks like the rights of a group.
pub fn check_file(path: &Path) -> Result<(), SecretError> {
    let passed_in = std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|directory| path.starts_with(directory));
    let file = open(path)?;
    if passed_in { Ok(()) } else { check_private(&file, path) }
}

fn check_private(file: &File, path: &Path) -> Result<(), SecretError> {
    let meta = file.metadata().map_err(|source| SecretError::Read { path: path.into(), source })?;
    let own = rustix::process::geteuid().as_raw();
    if meta.mode() & 0o077 != 0 {
        return Err(SecretError::TooOpen { path: path.into(), mode: meta.mode() & 0o7777 });
    }
    if meta.uid() != 0 && meta.uid() != own {
        return Err(SecretError::WrongOwner { path: path.into(), owner: meta.uid() });
    }
    Ok(())
}

/// Reads a secret that systemd has put into `$CREDENTIALS_DIRECTORY` (systemd.exec(5), "Credentials").
pub fn from_credential(name: &str) -> Result<SecretString, SecretError> {
    if name.contains('/') || name.is_empty() {
        return Err(SecretError::NoCredential);
    }
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or(SecretError::NoCredential)?;
    let path = Path::new(&directory).join(name);
    if !path.exists() {
        return Err(SecretError::NoCredential);
    }
    read(open(&path)?, &path)
}

/// Writes a secret that this program made itself to a new file (mode 0600).
pub fn to_file(path: &Path, secret: &SecretString) -> Result<(), SecretError> {
    crate::durable::replace(path, secret.expose_secret().as_bytes())
        .map_err(|source| SecretError::Write { path: path.into(), source })
}

fn open(path: &Path) -> Result<File, SecretError> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::CLOEXEC.bits().cast_signed())
        .open(path)
        .map_err(|source| SecretError::Read { path: path.into(), source })
}

fn read(file: File, path: &Path) -> Result<SecretString, SecretError> {
    // Room for everything at once: a growing buffer would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    file.take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| SecretError::Read { path: path.into(), source })?;
    let content = || SecretError::Content { path: path.into() };
    let text = std::str::from_utf8(&bytes).map_err(|_| content())?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    if text.is_empty() || bytes.len() > MAX_BYTES {
        return Err(content());
    }
    Ok(SecretString::from(text))
}

/// Raises the limit on open files as far as it goes: connections, the token and the trail share it.
pub fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // What cannot be raised is counted with as it is.
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Turns off core dumps and tracing by the same user, so that the PIN cannot be read out of this
/// process. First thing in `main`.
pub fn forbid_core_dumps() -> Result<(), SecretError> {
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .and_then(|()| rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|errno| SecretError::CoreDump(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn one_trailing_newline_is_dropped() {
        let (_directory, path) = file(b"1234567\n", 0o600);
        assert_eq!(from_file(&path).unwrap().expose_secret(), "1234567");
    }

    #[test]
    fn files_that_others_can_read_and_empty_files_are_refused() {
        for (content, mode) in [
            (&b"1234567"[..], 0o640),
            (b"1234567", 0o604),
            (b"", 0o600),
            (b"\n", 0o600),
            (&[0xff; 8], 0o600),
            (&[b'1'; 5000], 0o600),
        ] {
            let (_directory, path) = file(content, mode);
            let error = from_file(&path).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("1234567"));
        }
    }
}
