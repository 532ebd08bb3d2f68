//! `token list`, `token initialise`: looks at a PKCS#11 module without a login, and makes a SoftHSM2 token.

use std::{io::BufRead, path::PathBuf};

use secrecy::SecretString;

use super::{ConfigFile, block_on, refused};
use crate::{app, exit_code::ExitCode, token::provision};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the tokens that a module shows: their URIs, for `token.uri`. Nobody logs in.
    List {
        /// The PKCS#11 module.
        #[arg(long, value_name = "FILE")]
        module: PathBuf,
    },
    /// Copy the key ledger from the token into the file that `[ledger]` names, before standbys are used. Stop every
    /// appliance on this token first.
    Ledger(ConfigFile),
    /// Make a SoftHSM2 token in a free slot. Two lines of standard input: the PIN of its security officer,
    /// the PIN of its user. A production token is initialised with its vendor's tools.
    Initialise {
        /// The PKCS#11 module.
        #[arg(long, value_name = "FILE")]
        module: PathBuf,
        /// The new token's label.
        #[arg(long, value_name = "LABEL")]
        label: String,
    },
}

pub(super) fn run(command: &Command) -> Result<ExitCode, ExitCode> {
    let unusable = |error: crate::token::Error| refused(&error, ExitCode::Unavailable);
    match command {
        Command::List { module } => {
            for token in provision::present_tokens(module).map_err(unusable)? {
                println!("{}", token.uri());
            }
        }
        Command::Ledger(file) => {
            let config = file.load()?;
            let copied = block_on(app::copy_ledger(&config)).map_err(|error| refused(&error, error.exit_code()))?;
            println!("{copied} record(s) of the ledger are in the file");
        }
        Command::Initialise { module, label } => {
            let (officer, user) = (line()?, line()?);
            provision::initialise_token(module, label, &officer, &user).map_err(unusable)?;
        }
    }
    Ok(ExitCode::Success)
}

fn line() -> Result<SecretString, ExitCode> {
    let mut text = zeroize::Zeroizing::new(String::with_capacity(4096));
    let read = std::io::stdin().lock().read_line(&mut text);
    match (read, text.trim_end_matches('\n')) {
        (Ok(_), "") | (Err(_), _) => {
            Err(refused(&"two PINs are read from standard input, one a line", ExitCode::Usage))
        }
        (Ok(_), pin) => Ok(SecretString::from(pin)),
    }
}
