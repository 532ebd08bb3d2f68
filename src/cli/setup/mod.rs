//! `init` where no configuration is yet: profile → module → token → PIN → configuration → first key. The
//! files are root's to write; the module is loaded, and the token used, by the service's own user only.

mod pin;
mod profile;
mod questions;
mod user;

use std::{fs, io, path::PathBuf};

use self::{pin::Store, profile::Profile, questions::Questions, user::User};
use super::refused;
use crate::{exit_code::ExitCode, key::SignerId, token::TokenUri};

/// Flags for automation; on a terminal, what they leave open is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The configuration file. When it is there, `init` only makes the first key.
    #[arg(long, value_name = "FILE", default_value = "/etc/verification-signer/config.toml")]
    pub(super) config: PathBuf,
    /// The kind of HSM: the name of a file in --profiles.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Where the profiles are.
    #[arg(long, value_name = "DIR", default_value = "/usr/share/verification-signer/hsm-config")]
    profiles: PathBuf,
    /// First part of every key id, and of every label on the token.
    #[arg(long, value_name = "ID")]
    signer_id: Option<String>,
    /// The PKCS#11 module [default: that of the profile]
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// The token's label [default: the only token that the module shows]
    #[arg(long, value_name = "LABEL")]
    token: Option<String>,
    /// Make the token, with a random PIN: SoftHSM2 only.
    #[arg(long, conflicts_with = "pin_file")]
    make_token: bool,
    /// A file with the token's user PIN, or - for standard input.
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
    /// How the PIN is kept: encrypted for this machine (systemd-creds), or in a file for root only.
    #[arg(long, value_enum, default_value = "auto")]
    pin_store: pin::Kind,
    /// The user of the service.
    #[arg(long, value_name = "NAME", default_value = "verification-signer")]
    user: String,
}

/// Why the set-up stopped. Each message says what to do.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Refused(String),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// The other process has said it.
    #[error("the set-up ends here: no configuration was written")]
    Child(ExitCode),
}

impl Error {
    fn io(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_string();
        |source| Self::Io { what, source }
    }

    fn code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::Usage,
            Self::Refused(_) => ExitCode::Config,
            Self::Io { .. } => ExitCode::Unavailable,
            Self::Child(code) => *code,
        }
    }
}

pub(super) fn run(options: &Options) -> Result<ExitCode, ExitCode> {
    set_up(options).map_err(|error| refused(&error, error.code()))
}

fn set_up(options: &Options) -> Result<ExitCode, Error> {
    let questions = Questions::new();
    let user = User::named(&options.user)?;
    let profile = Profile::choose(options, &questions)?;
    let signer_id = signer_id(options, &questions)?;
    let module = options.module.clone().unwrap_or_else(|| profile.module.clone());
    let store = Store::beside(&options.config, options.pin_store);
    println!("profile   {}", profile.name);
    println!("module    {}", module.display());
    let (uri, pin) = token(options, &questions, &profile, &user, &module, &store)?;
    println!("token     {uri}");
    let kept = store.keep(&pin)?;
    println!("PIN       {kept}");
    let text = profile.configuration(&signer_id, &module, &uri)?;
    user.write_for(&options.config, &text)?;
    println!("written   {}", options.config.display());
    if let Err(error) = user.first_key(&options.config, &pin) {
        // So that it can be tried again; the PIN stays, for a token that was made.
        let _ = fs::remove_file(&options.config);
        return Err(error);
    }
    println!("{}", next_steps(options, &uri));
    Ok(ExitCode::Success)
}

fn signer_id(options: &Options, questions: &Questions) -> Result<SignerId, Error> {
    let asked =
        questions.answer(options.signer_id.clone(), "--signer-id", "Name of this signer", Some("veid-signer-1"))?;
    SignerId::parse(&asked).map_err(|error| Error::Usage(format!("--signer-id: {error}")))
}

/// The one token that is meant, and its PIN.
fn token(
    options: &Options,
    questions: &Questions,
    profile: &Profile,
    user: &User,
    module: &std::path::Path,
    store: &Store,
) -> Result<(TokenUri, secrecy::SecretString), Error> {
    let present = user.tokens(module)?;
    if options.make_token {
        if profile.name != "softhsm2" {
            return Err(Error::Usage(
                "--make-token is for SoftHSM2: initialise this token with its vendor's tools".into(),
            ));
        }
        let label = options.token.clone().unwrap_or_else(|| "verification-signer".into());
        if present.iter().any(|uri| uri.label() == Some(&label)) {
            return Err(Error::Refused(format!(
                "a token labelled {label:?} is there already: name it with --token, and its PIN with --pin-file"
            )));
        }
        let pin = pin::random()?;
        // Kept first: a token whose PIN was lost is lost.
        store.keep(&pin)?;
        user.make_token(module, &label, &pin)?;
        return Ok((only(user.tokens(module)?, Some(&label))?, pin));
    }
    let uri = only(present, options.token.as_deref())?;
    Ok((uri, pin::ask(options.pin_file.as_deref(), questions)?))
}

fn only(present: Vec<TokenUri>, label: Option<&str>) -> Result<TokenUri, Error> {
    let shown = present.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut matching: Vec<_> =
        present.into_iter().filter(|uri| label.is_none_or(|label| uri.label() == Some(label))).collect();
    match (matching.pop(), matching.is_empty()) {
        (Some(uri), true) => Ok(uri),
        (None, _) if shown.is_empty() => Err(Error::Refused(
            "the module shows no token: initialise one with its vendor's tools (SoftHSM2: --make-token), or correct its configuration".into(),
        )),
        _ => Err(Error::Refused(format!("name one token with --token; the module shows: {shown}"))),
    }
}

fn next_steps(options: &Options, uri: &TokenUri) -> String {
    format!(
        "\nVerify, and keep it elsewhere (RUNBOOK.md, \"Key ceremony\"):\n\
         - the fingerprint of the key above, and `curl -s http://127.0.0.1:8080/api/v1/signer` once it serves\n\
         - the key on the token: pkcs11-tool --module … --list-objects shows it sensitive, never extractable, local\n\
         - the public audit key: jq -r .audit.public_key of the same answer\n\
         Then:\n\
         - look through {}\n\
         - systemctl enable --now verification-signer\n\
         - verification-signer status\n\
         The token is {uri}; back it up with its vendor's tools.",
        options.config.display()
    )
}
