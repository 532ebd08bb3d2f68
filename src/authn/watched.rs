//! Something read from files, and read again when they change.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// By what a changed file is known. Replacing a file gives it another inode, whatever its time says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Vec<Option<[i128; 5]>>);

impl Stamp {
    /// As the files are now.
    #[must_use]
    pub fn of(paths: &[PathBuf]) -> Self {
        let stamp = |path: &PathBuf| {
            let meta = std::fs::metadata(path).ok()?;
            let (place, time) = ([meta.dev(), meta.ino(), meta.size()], [meta.mtime(), meta.mtime_nsec()]);
            let [device, inode, size] = place.map(i128::from);
            let [seconds, nanoseconds] = time.map(i128::from);
            Some([device, inode, size, seconds, nanoseconds])
        };
        Self(paths.iter().map(stamp).collect())
    }
}

/// The value that was last read without a mistake.
pub struct Watched<T> {
    paths: Vec<PathBuf>,
    value: ArcSwap<T>,
    seen: Mutex<Stamp>,
}

impl<T> Watched<T> {
    /// Reads it for the first time; then a mistake is the caller's trouble.
    pub fn open<E>(paths: Vec<PathBuf>, load: impl Fn(&Path) -> Result<T, E>) -> Result<Self, E> {
        // Looked at before it is read: a change in between is then found by the next look.
        let seen = Mutex::new(Stamp::of(&paths));
        let value = load(&paths[0])?;
        Ok(Self { paths, value: ArcSwap::from_pointee(value), seen })
    }

    /// The value.
    pub fn current(&self) -> Arc<T> {
        self.value.load_full()
    }

    /// Reads it again if a file changed. A mistake leaves the value as it was, and is told once.
    pub fn refresh<E: std::fmt::Display>(
        &self,
        forced: bool,
        load: impl Fn(&Path) -> Result<T, E>,
        what: &str,
    ) -> Option<Result<String, String>> {
        let mut seen = self.seen.lock();
        let now = Stamp::of(&self.paths);
        if !forced && *seen == now {
            return None;
        }
        *seen = now;
        Some(match load(&self.paths[0]) {
            Ok(value) => {
                self.value.store(Arc::new(value));
                Ok(what.to_owned())
            }
            Err(error) => Err(format!("{what}: {error}")),
        })
    }
}
