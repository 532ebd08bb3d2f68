//! The PIN: made or asked for, and kept as a credential of the unit. It is never an argument.

use std::{
    fmt, fs, io,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::{Error, Questions, profile::CREDENTIAL};
use crate::{durable, secret};

/// Where systemd looks for encrypted credentials, and for drop-ins of an administrator.
const ENCRYPTED: &str = "/etc/credstore.encrypted/verification-signer.hsm-pin";
const DROP_INS: &str = "/etc/systemd/system/verification-signer.service.d";

/// How the PIN is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// Encrypted when systemd-creds can, else in a file.
    Auto,
    /// Encrypted, or not at all.
    Encrypted,
    /// In a file that only root can read.
    File,
}

pub(super) struct Store {
    kind: Kind,
    file: PathBuf,
}

/// Where the PIN is now.
pub(super) enum Kept {
    Encrypted,
    File(PathBuf),
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encrypted => write!(f, "encrypted for this machine in {ENCRYPTED}"),
            Self::File(path) => write!(f, "in {}, for root only", path.display()),
        }
    }
}

impl Store {
    pub(super) fn beside(config: &Path, kind: Kind) -> Self {
        let file = config.parent().unwrap_or(Path::new("/")).join("credentials").join(CREDENTIAL);
        Self { kind, file }
    }

    /// Keeps the PIN where the unit finds it.
    pub(super) fn keep(&self, pin: &SecretString) -> Result<Kept, Error> {
        match self.kind {
            Kind::File => self.to_file(pin),
            Kind::Encrypted => encrypt(pin).map(|()| Kept::Encrypted),
            Kind::Auto => encrypt(pin).map(|()| Kept::Encrypted).or_else(|why| {
                println!("PIN       cannot be encrypted ({why}): it is kept in a file");
                self.to_file(pin)
            }),
        }
    }

    fn to_file(&self, pin: &SecretString) -> Result<Kept, Error> {
        let directory = self.file.parent().unwrap_or(Path::new("/"));
        durable::private_directory(directory).map_err(Error::io(directory.display()))?;
        secret::to_file(&self.file, pin).map_err(|error| Error::Refused(error.to_string()))?;
        Ok(Kept::File(self.file.clone()))
    }
}

/// `systemd-creds encrypt`: with the TPM of this machine when it has one, else with its host key.
fn encrypt(pin: &SecretString) -> Result<(), Error> {
    let failed = || Error::io("systemd-creds");
    durable::private_directory(Path::new("/etc/credstore.encrypted")).map_err(failed())?;
    let mut child = Command::new("systemd-creds")
        .args(["encrypt", &format!("--name={CREDENTIAL}"), "-", ENCRYPTED])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed())?;
    let mut input = child.stdin.take().expect("it was asked for");
    let written = input.write_all(pin.expose_secret().as_bytes());
    drop(input);
    let output = child.wait_with_output().map_err(failed())?;
    if !output.status.success() {
        return Err(Error::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    written.map_err(failed())?;
    let text = format!(
        "# Written by `verification-signer init`.\n[Service]\nLoadCredential=\nLoadCredentialEncrypted={CREDENTIAL}:{ENCRYPTED}\n"
    );
    let path = Path::new(DROP_INS).join("10-pin.conf");
    fs::create_dir_all(DROP_INS)
        .and_then(|()| fs::write(&path, text))
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
        .map_err(Error::io(path.display()))?;
    // Where no systemd runs (an image that is being built), it reads the drop-in when it starts.
    let _ = Command::new("systemctl").arg("daemon-reload").stderr(Stdio::null()).status();
    Ok(())
}

/// A PIN that nobody needs to know.
pub(super) fn random() -> Result<SecretString, Error> {
    let mut bytes = Zeroizing::new([0u8; 16]);
    getrandom::fill(&mut *bytes).map_err(|error| Error::Refused(error.to_string()))?;
    Ok(SecretString::from(hex::encode(*bytes)))
}

/// From the file, from standard input, or typed without an echo.
pub(super) fn ask(file: Option<&Path>, questions: &Questions) -> Result<SecretString, Error> {
    match file {
        Some(path) if path == Path::new("-") => {
            let mut line = Zeroizing::new(String::with_capacity(4096));
            io::stdin().read_line(&mut line).map_err(Error::io("standard input"))?;
            not_empty(line.trim_end_matches('\n'))
        }
        Some(path) => secret::from_file(path).map_err(|error| Error::Refused(error.to_string())),
        None if questions.interactive() => {
            let typed = rpassword::prompt_password("The token's user PIN: ").map_err(Error::io("the terminal"))?;
            not_empty(&Zeroizing::new(typed))
        }
        None => Err(Error::Usage("the token's user PIN: name a file with --pin-file, or - for standard input".into())),
    }
}

fn not_empty(pin: &str) -> Result<SecretString, Error> {
    if pin.is_empty() { Err(Error::Usage("the PIN is empty".into())) } else { Ok(SecretString::from(pin)) }
}
