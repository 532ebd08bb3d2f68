//! A process whose wall clock is what the test says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::tool;

const SHIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/softhsm-tests/support/clock_shim.c");

/// The clock of one process. Its files are in `home`.
pub struct ShiftedClock {
    offset: PathBuf,
    library: PathBuf,
}

impl ShiftedClock {
    /// Right at first.
    pub fn new(home: &Path) -> Self {
        let (library, offset) = (home.join("clock_shim.so"), home.join("offset"));
        tool::run("gcc", &["-shared", "-fPIC", "-O1", "-o", library.to_str().unwrap(), SHIM], &[]);
        fs::write(&offset, "0").unwrap();
        Self { offset, library }
    }

    /// What this command starts reads this clock.
    pub fn govern(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("CLOCK_OFFSET_FILE", &self.offset);
    }

    /// Sets the clock so many seconds ahead of the true time, or behind it.
    pub fn seconds(&self, seconds: i64) {
        let new = self.offset.with_extension("new");
        fs::write(&new, seconds.to_string()).unwrap();
        fs::rename(&new, &self.offset).unwrap();
    }
}
