//! The fault module between an appliance and its token: what goes wrong, and which calls were made.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use fault_module::Counts;

use super::softhsm::MODULE;

/// Steers one fault module, from outside the process that has loaded it.
pub struct Faults {
    control: PathBuf,
    counts: PathBuf,
}

impl Faults {
    /// Nothing goes wrong yet. Its files are in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { control: directory.join("faults"), counts: directory.join("calls") }
    }

    /// The module to configure instead of the real one. Cargo has built it beside this very program.
    pub fn module() -> PathBuf {
        let path = env::current_exe().unwrap().with_file_name("libfault_module.so");
        assert!(path.exists(), "{} was not built with the tests", path.display());
        path
    }

    /// The environment that the appliance needs.
    pub fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("FAULT_MODULE", MODULE.into()),
            ("FAULT_CONTROL", self.control.clone()),
            ("FAULT_COUNTS", self.counts.clone()),
        ]
    }

    /// The file that it writes to at every call.
    pub fn counts(&self) -> &Path {
        &self.counts
    }

    /// From the next call on these rules hold, and no others.
    pub fn set(&self, rules: &str) {
        let next = self.control.with_extension("next");
        fs::write(&next, rules).unwrap();
        fs::rename(next, &self.control).unwrap();
    }

    /// From the next call on nothing goes wrong any more; calls that hang go on.
    pub fn clear(&self) {
        self.set("");
    }

    /// How often a function was called, by whatever process.
    pub fn calls(&self, function: &str) -> u64 {
        Counts::open(&self.counts).unwrap().calls(function)
    }
}
