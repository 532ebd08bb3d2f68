//! How often each function was called: a file that is shared memory, so that counting costs next to
//! nothing, outlives the process, and adds up over several.

use std::{
    fs::OpenOptions,
    io,
    os::fd::AsRawFd,
    path::Path,
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::functions::NAMES;

const SIZE: usize = NAMES.len() * size_of::<AtomicU64>();

/// One number for each function.
pub struct Counts(&'static [AtomicU64]);

impl Counts {
    /// Opens the file; makes it when it is not there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(SIZE as u64)?;
        // SAFETY: a new mapping of a file that is as long as this; nobody makes it shorter.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), SIZE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: mapped above, aligned to a page, and never unmapped.
        Ok(Self(unsafe { std::slice::from_raw_parts(start.cast::<AtomicU64>(), NAMES.len()) }))
    }

    pub(crate) fn add(&self, function: usize) {
        self.0[function].fetch_add(1, Ordering::Relaxed);
    }

    /// How often this function was called.
    #[must_use]
    pub fn calls(&self, function: &str) -> u64 {
        let index = NAMES.iter().position(|name| *name == function).expect("a function of PKCS#11");
        self.0[index].load(Ordering::Relaxed)
    }
}
