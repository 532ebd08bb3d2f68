//! `verification-signer`: argv → command → exit code.

use clap::Parser;
use verification_signer::{cli::Cli, exit_code::ExitCode, secret};

fn main() -> std::process::ExitCode {
    if let Err(error) = secret::forbid_core_dumps() {
        eprintln!("verification-signer: {error}");
        return ExitCode::Unavailable.into();
    }
    secret::raise_file_limit();
    match Cli::try_parse() {
        Ok(cli) => cli.run().into(),
        Err(error) => {
            // `--help` and `--version` are answers, not errors; clap knows which stream they go to.
            let code = if error.use_stderr() { ExitCode::Usage } else { ExitCode::Success };
            let _ = error.print();
            code.into()
        }
    }
}
