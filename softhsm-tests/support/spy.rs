//! pkcs11-spy between the appliance and its module: which PKCS#11 calls were really made.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::softhsm::MODULE;

/// Where distributions put OpenSC's spy.
const SPIES: [&str; 3] =
    ["/usr/lib/x86_64-linux-gnu/pkcs11-spy.so", "/usr/lib/aarch64-linux-gnu/pkcs11-spy.so", "/usr/lib64/pkcs11-spy.so"];

/// The calls that went through one spy.
pub struct Spy {
    log: PathBuf,
}

impl Spy {
    /// A spy that writes to a file in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { log: directory.join("pkcs11-spy.log") }
    }

    /// The module to configure instead of SoftHSM2's own.
    pub fn module() -> &'static str {
        SPIES.into_iter().find(|path| Path::new(path).exists()).expect("pkcs11-spy is missing: run `make tools`")
    }

    /// The environment that the appliance needs.
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("PKCS11SPY", MODULE.into()), ("PKCS11SPY_OUTPUT", self.log.clone())]
    }

    /// How often a function was called.
    pub fn calls(&self, function: &str) -> usize {
        // No log: not even C_GetFunctionList was called.
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        text.lines().filter(|line| line.split_once(": ").is_some_and(|(_, called)| called == function)).count()
    }
}
