//! Exit codes, after sysexits(3). The unit file depends on them: 78 is never restarted.

use std::{os::unix::process::CommandExt, process::Command};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Stopped because it was told to, or did what it was asked.
    Success = 0,
    /// EX_USAGE: the command line is wrong.
    Usage = 64,
    /// EX_DATAERR: the audit trail, a backup or an attestation is not what it must be.
    Data = 65,
    /// EX_UNAVAILABLE: the token, a directory or a port is not usable now, or too many calls to the token
    /// hang; a restart may help.
    Unavailable = 69,
    /// EX_SOFTWARE: a promise could not be kept (the audit trail failed); start-up finds the truth.
    Software = 70,
    /// EX_TEMPFAIL: not now. The change waits for the approval of others, or a limit is reached.
    Later = 75,
    /// EX_PROTOCOL: what was asked for was understood, and refused: by the appliance, or by `restore`.
    Refused = 76,
    /// EX_NOPERM: whoever asked lacks the role.
    NotPermitted = 77,
    /// EX_CONFIG: somebody must change the configuration, a file that it names, the PIN, the token or a
    /// damaged trail first.
    Config = 78,
}

impl ExitCode {
    /// Ends the process without exit handlers: those of a PKCS#11 module take its data down, and a thread
    /// that is still inside the module would crash. Another program in its place, here this one again
    /// with [`Self::END`], ends every thread where it stands, keeps the process id, and exits by itself.
    pub fn end_at_once(self) -> ! {
        let code = (self as u8).to_string();
        let error = Command::new("/proc/self/exe").args([Self::END, &code]).exec();
        tracing::error!(%error, code, "the process cannot end as it should");
        std::process::abort();
    }

    /// The command that only ends with the code that follows it.
    pub const END: &str = "end-with";
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
