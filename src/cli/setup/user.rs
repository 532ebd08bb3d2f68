//! The service's user: whatever touches the module or the token is done by a process of its own, as that
//! user, so that root never runs a vendor's code and every file is the service's.

use std::{
    fs,
    io::Write,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use secrecy::{ExposeSecret, SecretString};

use super::{Error, pin, profile::CREDENTIAL};
use crate::{durable, exit_code::ExitCode, secret, token::TokenUri};

/// Where the package puts SoftHSM2's configuration.
const SOFTHSM2_CONF: &str = "/etc/verification-signer/softhsm2.conf";

pub(super) struct User {
    uid: u32,
    gid: u32,
}

impl User {
    pub(super) fn named(name: &str) -> Result<Self, Error> {
        let (uid, gid) = (id(name, "-u")?, id(name, "-g")?);
        let own = rustix::process::geteuid().as_raw();
        if own != 0 && own != uid {
            return Err(Error::Usage(format!(
                "run it as root: it writes the configuration, and uses the token as {name}"
            )));
        }
        Ok(Self { uid, gid })
    }

    /// The tokens that the module shows.
    pub(super) fn tokens(&self, module: &Path) -> Result<Vec<TokenUri>, Error> {
        let mut command = self.command(&["token", "list", "--module"]);
        let output = command.arg(module).stderr(Stdio::inherit()).output().map_err(Error::io("token list"))?;
        if !output.status.success() {
            return Err(Error::Refused(format!("the module {} cannot be used", module.display())));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let read = |line: &str| TokenUri::parse(line).map_err(|error| Error::Refused(format!("{line}: {error}")));
        text.lines().map(read).collect()
    }

    /// A new token. The PIN of its security officer is kept by nobody: SoftHSM2 locks no PIN.
    pub(super) fn make_token(&self, module: &Path, label: &str, pin: &SecretString) -> Result<(), Error> {
        let mut command = self.command(&["token", "initialise", "--label", label, "--module"]);
        let mut child = command.arg(module).stdin(Stdio::piped()).spawn().map_err(Error::io("token initialise"))?;
        let (officer, mut input) = (pin::random()?, child.stdin.take().expect("it was asked for"));
        let lines = zeroize::Zeroizing::new(format!("{}\n{}\n", officer.expose_secret(), pin.expose_secret()));
        input.write_all(lines.as_bytes()).map_err(Error::io("token initialise"))?;
        drop(input);
        ended(child.wait().map_err(Error::io("token initialise"))?)
    }

    /// `init` with the configuration that is there now.
    pub(super) fn first_key(&self, config: &Path, pin: &SecretString) -> Result<(), Error> {
        let credentials = Credentials::with(pin, self)?;
        let mut command = self.command(&["init", "--config"]);
        command.arg(config).env("CREDENTIALS_DIRECTORY", &credentials.0);
        ended(command.status().map_err(Error::io("init"))?)
    }

    /// A file that root writes and the service reads. Nobody else.
    pub(super) fn write_for(&self, path: &Path, text: &str) -> Result<(), Error> {
        durable::replace(path, text.as_bytes())
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o640)))
            .and_then(|()| chown(path, None, Some(self.gid)))
            .map_err(Error::io(path.display()))
    }

    /// This program, as the user.
    fn command(&self, arguments: &[&str]) -> Command {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).current_dir("/");
        if rustix::process::geteuid().is_root() {
            // Supplementary groups are given up with the user id.
            command.uid(self.uid).gid(self.gid);
        }
        if std::env::var_os("SOFTHSM2_CONF").is_none() && Path::new(SOFTHSM2_CONF).exists() {
            command.env("SOFTHSM2_CONF", SOFTHSM2_CONF);
        }
        command
    }
}

fn ended(status: std::process::ExitStatus) -> Result<(), Error> {
    match status.code() {
        Some(0) => Ok(()),
        Some(78) => Err(Error::Child(ExitCode::Config)),
        Some(_) | None => Err(Error::Child(ExitCode::Unavailable)),
    }
}

fn id(name: &str, which: &str) -> Result<u32, Error> {
    let output = Command::new("id").args([which, name]).output().map_err(Error::io("id"))?;
    let number = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
    number.ok_or_else(|| {
        Error::Usage(format!("there is no user {name}: the package makes it, or name another with --user"))
    })
}

/// A directory of credentials, as systemd would pass it; removed with the value.
struct Credentials(PathBuf);

impl Credentials {
    fn with(pin: &SecretString, user: &User) -> Result<Self, Error> {
        let directory = PathBuf::from(format!("/run/verification-signer-init.{}", std::process::id()));
        let made = Self(directory.clone());
        durable::private_directory(&directory).map_err(Error::io(directory.display()))?;
        let file = directory.join(CREDENTIAL);
        secret::to_file(&file, pin).map_err(|error| Error::Refused(error.to_string()))?;
        for path in [&file, &directory] {
            chown(path, Some(user.uid), Some(user.gid)).map_err(Error::io(path.display()))?;
        }
        Ok(made)
    }
}

impl Drop for Credentials {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
