//! Exit codes, after sysexits(3). The unit file depends on them: 78 is never restarted.

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Stopped because it was told to, or did what it was asked.
    Success = 0,
    /// EX_USAGE: the command line is wrong.
    Usage = 64,
    /// EX_DATAERR: the audit trail is not what it must be.
    Data = 65,
    /// EX_UNAVAILABLE: the token, a directory or a port is not usable now; a restart may help.
    Unavailable = 69,
    /// EX_SOFTWARE: a promise could not be kept (the audit trail failed); start-up finds the truth.
    Software = 70,
    /// EX_CONFIG: somebody must change the configuration, a file that it names, the PIN, the token or a
    /// damaged trail first.
    Config = 78,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
