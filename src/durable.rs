//! Files that must survive a power cut, with their system calls written down.
//!
//! - [`AppendLog`]: `open(O_APPEND|O_CREAT|O_NOFOLLOW)`, `fsync(directory)` when it was created, then
//!   one `write` and one `fdatasync` per batch.
//! - [`replace`]: write a temporary file, `fsync` it, `rename` over the old one, `fsync(directory)`.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, OFlags};

/// A file that only grows, opened once and owned by one writer.
#[derive(Debug)]
pub struct AppendLog {
    file: File,
    path: PathBuf,
    length: u64,
}

/// Why bytes were not appended.
#[derive(Debug)]
pub enum AppendError {
    /// The file is as it was before.
    NotWritten(io::Error),
    /// The state of the file is unknown: the log must not be used again. A second `fdatasync` may
    /// report success for pages that the kernel has already dropped.
    Unknown(io::Error),
}

impl From<AppendError> for io::Error {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NotWritten(error) | AppendError::Unknown(error) => error,
        }
    }
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
        let length = file.metadata()?.len();
        Ok(Self { file, path: path.to_owned(), length })
    }

    /// Appends `bytes` and returns once they are on disk.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        if let Err(error) = self.file.write_all(bytes) {
            return Err(if self.cut_back() { AppendError::NotWritten(error) } else { AppendError::Unknown(error) });
        }
        self.file.sync_data().map_err(AppendError::Unknown)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Takes back a part of a write that nobody was told of. A read-only file system forbids even
    /// that, and has written nothing.
    fn cut_back(&self) -> bool {
        let has_grown = || self.file.metadata().map_or(true, |meta| meta.len() != self.length);
        self.file.set_len(self.length).is_ok() || !has_grown()
    }

    /// How many bytes there are.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Puts everything on disk, and forgets what the page cache says: what is read from now on is what
    /// the disk has. Pages whose write failed once look clean and are not.
    pub fn settle(&self) -> io::Result<()> {
        self.file.sync_all()?;
        rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
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
        self.length == 0
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
    let mut file = private_file().truncate(true).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_directory(parent(path))
}

/// Makes a file of this many bytes whose room on the disk is taken at once, or leaves none.
pub fn reserve(path: &Path, bytes: u64) -> io::Result<()> {
    let file = private_file().truncate(false).open(path)?;
    if file.metadata()?.len() > bytes {
        file.set_len(bytes)?;
    }
    let made = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes);
    made.map_err(|errno| {
        // What was taken of it is given back: whoever finds the file may rely on its size.
        let _ = std::fs::remove_file(path);
        errno.into()
    })
}

/// Bytes that this user may still write to the file system of `path`.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
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
    let file = private_file().truncate(false).open(path)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(DirectoryLock(file))
}

/// Makes a rename or removal in the directory of `path` durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    sync_directory(parent(path))
}

/// A file of ours alone, made when missing. A symbolic link is refused.
fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
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
        assert_eq!(AppendLog::open(&path).unwrap().length(), 8);
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
