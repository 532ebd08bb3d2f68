//! `backup drill`: restores into a temporary place, and proves there that the token and the backup belong together.
//! `restore` does the same before it puts anything in its place.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Backup, Error, Report,
    contents::{self, STATE, TRAIL, is_plain},
    verify,
};
use crate::{
    app::{Opened, StartError},
    audit,
    config::{Config, LedgerConfig},
    durable,
    key::{KeyEntry, seen::Seen},
    ledger_file,
    token::Token,
};

/// Where a backup is laid out before anything is put in its place.
pub(super) struct Staging {
    pub(super) state: PathBuf,
    pub(super) trail: PathBuf,
}

impl Staging {
    pub(super) fn make(state: PathBuf, trail: PathBuf) -> Result<Self, Error> {
        let staging = Self { state, trail };
        for directory in [&staging.state, &staging.trail] {
            durable::private_directory(directory).map_err(Error::io(directory))?;
        }
        Ok(staging)
    }

    pub(super) fn ledger(&self) -> PathBuf {
        self.state.join("ledger")
    }

    /// Lays the backup out, verifying it once more on the way.
    pub(super) fn fill(&self, backup: &Backup) -> Result<(), Error> {
        let mut into_trail = |name: &str| {
            let plain = name.strip_prefix(TRAIL).filter(|name| is_plain(name));
            let plain = plain.ok_or_else(|| io::Error::other("a name that leads elsewhere"))?;
            Ok(Box::new(new_file(&self.trail.join(plain), 0o640)?) as Box<dyn Write>)
        };
        let again = verify::read(&backup.path, Some(&backup.keys), &mut into_trail)?;
        if again.small != backup.small {
            return Err(Error::spoiled(backup.path.display().to_string(), "it has changed meanwhile"));
        }
        for (name, bytes) in &backup.small {
            let Some(name) = name.strip_prefix(STATE) else { continue };
            let path = self.state.join(name);
            if !name.split('/').all(is_plain) {
                return Err(Error::spoiled(name, "its name leads elsewhere"));
            }
            let directory = path.parent().unwrap_or(&self.state);
            durable::private_directory(directory).map_err(Error::io(directory))?;
            new_file(&path, 0o600).and_then(|mut file| file.write_all(bytes)).map_err(Error::io(&path))?;
        }
        let lines: String = backup.records.iter().map(ledger_file::line).collect();
        let ledger = self.ledger();
        new_file(&ledger, 0o640).and_then(|mut file| file.write_all(lines.as_bytes())).map_err(Error::io(&ledger))
    }

    /// The configuration with everything but the token in here.
    fn configuration(&self, config: &Config) -> Config {
        let mut staged = config.clone();
        staged.audit.directory = self.trail.clone();
        if matches!(config.ledger, LedgerConfig::File { .. }) {
            staged.ledger = LedgerConfig::File { path: self.ledger() };
        }
        staged
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        for directory in [&self.state, &self.trail] {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

fn new_file(path: &Path, mode: u32) -> io::Result<fs::File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// Restores into a temporary place, and compares. The token is only read, and signs a canary.
pub async fn drill(backup: &Backup, config: &Config, report: Report<'_>) -> Result<(), Error> {
    let place = std::env::temp_dir().join(format!("verification-signer-drill.{}", std::process::id()));
    let staging = Staging::make(place.join("state"), place.join("audit"))?;
    let drilled = prove(backup, config, &staging, report).await;
    drop(staging);
    let _ = fs::remove_dir(place);
    let opened = drilled?;
    match backup.about.seen.clone() {
        seen if seen == Seen::of(&opened.standing) => {
            report("ledger", "the token's and the backup's are identical");
        }
        seen => report(
            "ledger",
            &format!(
                "the token has gone on: {} changes of the keys, {} in the backup",
                opened.standing.last_sequence(),
                seen.ledger_records
            ),
        ),
    }
    Ok(opened.token.close().map_err(StartError::from)?)
}

/// Lays it out, opens the token, and compares key by key.
pub(super) async fn prove(
    backup: &Backup,
    config: &Config,
    staging: &Staging,
    report: Report<'_>,
) -> Result<Opened, Error> {
    if config.signer.id.as_str() != backup.about.signer_id {
        return Err(Error::Refused(format!(
            "the backup is one of signer {}, the configuration is that of {}: take the right one",
            backup.about.signer_id, config.signer.id
        )));
    }
    staging.fill(backup)?;
    report(
        "backup",
        &format!(
            "{} of {}, {} members, signed by the audit key",
            backup.about.signer_id, backup.about.created_at, backup.members
        ),
    );
    let staged = staging.configuration(config);
    // What the backup remembers of the ledger is compared with the token here.
    let opened = Opened::open_remembering(&staged, &staging.state).await?;
    report("token", &format!("{}, logged in", opened.token.identity().uri()));
    let tokens = opened.own_tokens(config).await?;
    let mut elsewhere = 0;
    for key in backup.standing.keys() {
        let token = tokens.with(key).await;
        elsewhere += usize::from(token.is_none());
        compare(backup, key, &opened, token).await?;
    }
    tokens.close();
    if elsewhere > 0 {
        let away = if tokens.away.is_empty() {
            "the configuration does not name their token".into()
        } else {
            tokens.away.join("; ")
        };
        report("remark", &format!("{elsewhere} key(s) compared with the ledger only: {away}"));
    }
    report(
        "keys",
        &format!(
            "{} on the token as in the backup: public keys, certificates, revocations",
            backup.standing.keys().count()
        ),
    );
    report(
        "history",
        &format!(
            "{} rotations, ledger of {} changes",
            backup.standing.rotations().count(),
            backup.standing.last_sequence()
        ),
    );
    if backup.about.trail {
        let verified = audit::verify(&staging.trail, &backup.keys, &[], |_| {})
            .map_err(|wrong| Error::Differs(format!("{}: {}", wrong.path.display(), wrong.what)))?;
        report("trail", &format!("{} records, {} checkpoints, verified", verified.records, verified.checkpoints));
    }
    opened.check_active_key().await?;
    let signs = opened
        .active_key()
        .map_or_else(|| "no key is active".into(), |key| format!("{} signed a canary, and it verifies", key.id));
    report("signature", &signs);
    Ok(opened)
}

/// With the ledger, and with the token that has it, if that is there.
async fn compare(backup: &Backup, key: &KeyEntry, opened: &Opened, token: Option<Arc<Token>>) -> Result<(), Error> {
    let differs = |what: &str| Error::Differs(format!("key {}: {what}", key.id));
    let here = opened.standing.key(&key.id).ok_or_else(|| differs("the token does not know it"))?;
    let number = key.id.sequence;
    let pem = backup.text(&contents::public_key(number)) == here.public_key.to_pem();
    if here.public_key.fingerprint() != key.public_key.fingerprint() || !pem {
        return Err(differs("its public key is another one"));
    }
    if key.revoked.is_some() && here.revoked.is_none() {
        return Err(differs("the token does not know that it is revoked"));
    }
    let Some(token) = token else { return Ok(()) };
    if here.destroyed_at.is_none() {
        let object = token.key_attributes(key.object_id.clone()).await;
        object.map_err(|error| differs(&format!("its private key is not usable on the token: {error}")))?;
    }
    let chain = token.certificates(key.object_id.clone()).await.map_err(StartError::from)?;
    // One that was issued since is newer, not wrong: only a lost one is.
    if chain.is_empty() && !backup.text(&contents::certificates(number)).is_empty() {
        return Err(differs("its certificate is not on the token"));
    }
    Ok(())
}
