//! Files that must survive a power cut, with their system calls written down.
//!
//! - [`AppendLog`]: `open(O_APPEND|O_CREAT|O_NOFOLLOW)`, `fsync(directory)` when it was created, then
//!   one `write` and one `fdatasync` per batch.
//! - [`replace`]: write a temporary file, `fsync` it, `rename` over the old one, `fsync(directory)`.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, OFlags};

/// A file that only grows, opened once and owned by one writer.
#[derive(Debug)]
pub struct AppendLog {
    file: File,
    path: PathBuf,
}

impl AppendLog {
    /// Opens or creates `path` (mode 0640) for appending. A symbolic link is refused: whoever can
    /// plant one could redirect the log.
    pub fn open(path: &Path) -> io::Result<Self> {
        let is_new = !path.exists();
        let file = OpenOptions::new()
            .append(true)
            .read(true)
            .create(true)
            .mode(0o640)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        if is_new {
            sync_directory(parent(path))?;
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// Appends `bytes` and returns once they are on disk. After an error the state of the file is
    /// unknown, and the caller must not use this value again: a second `fdatasync` may report
    /// success for pages that the kernel has already dropped.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.file.sync_data()
    }

    /// The last `limit` bytes.
    pub fn tail(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        let length = self.file.metadata()?.len();
        self.file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// True while `path` still names the file that is being written.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        match (self.file.metadata(), std::fs::symlink_metadata(&self.path)) {
            (Ok(ours), Ok(named)) => ours.ino() == named.ino() && ours.dev() == named.dev() && ours.nlink() > 0,
            _ => false,
        }
    }

    /// True while nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.len() == 0)
    }

    /// Renames the file to `to` and starts a new one under the old name.
    pub fn rotate(self, to: &Path) -> io::Result<Self> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, to)?;
        sync_directory(parent(to))?;
        Self::open(&self.path)
    }
}

/// Replaces the content of `path` (mode 0600) in one step: a crash leaves the old or the new.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_directory(parent(path))
}

/// Cuts off what follows the last newline of a file, if there is one.
pub fn cut_torn_line(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let content = std::fs::read(path)?;
    let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < content.len() {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(whole as u64)?;
        file.sync_all()?;
    }
    Ok(())
}

/// Makes a directory that only its owner can enter, and its parents, if they are missing.
pub fn private_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    sync_directory(parent(path))
}

/// A lock on a directory that ends with the process, however it ends.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "held for its flock")] File);

/// Takes the only lock on `directory`; `WouldBlock` when another process has it.
pub fn lock_directory(directory: &Path) -> io::Result<DirectoryLock> {
    lock_file(&directory.join(".lock"))
}

/// Takes the only lock on a file that is there for nothing else; `WouldBlock` when another has it.
pub fn lock_file(path: &Path) -> io::Result<DirectoryLock> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(DirectoryLock(file))
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_bytes_follow_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        AppendLog::open(&path).unwrap().append(b"one\n").unwrap();
        AppendLog::open(&path).unwrap().append(b"two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
        assert_eq!(AppendLog::open(&path).unwrap().tail(4).unwrap(), b"two\n");
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", directory.path().join("log")).unwrap();
        assert!(AppendLog::open(&directory.path().join("log")).is_err());
    }

    #[test]
    fn a_file_moved_or_removed_under_us_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = AppendLog::open(&path).unwrap();
        assert!(log.is_in_place());
        std::fs::remove_file(&path).unwrap();
        assert!(!log.is_in_place());
        std::fs::write(&path, b"").unwrap();
        assert!(!log.is_in_place());
    }

    #[test]
    fn a_directory_is_locked_once() {
        let directory = tempfile::tempdir().unwrap();
        let first = lock_directory(directory.path()).unwrap();
        assert_eq!(lock_directory(directory.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        lock_directory(directory.path()).unwrap();
    }
}
