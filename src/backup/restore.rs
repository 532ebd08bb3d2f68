//! `restore`: puts a backup where nothing is yet, beside the token whose it is. It is laid out and proved first; then
//! each file is put in its place, the memory of the ledger last.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Backup, Error, Report,
    contents::{API_KEYS, CONFIG},
    drill::{Staging, prove},
    guard,
};
use crate::{
    app::{Opened, StartError},
    config::{Config, LedgerConfig},
    durable,
    key::seen::Seen,
    service::marker::Marker,
};

const MARKER: &str = "ledger-seen.json";

/// Restores. `path` is where the configuration belongs; `config` the one that is there, or that of the backup.
pub async fn restore(
    backup: &Backup,
    path: &Path,
    config: &Config,
    accept_older: Option<&str>,
    report: Report<'_>,
) -> Result<(), Error> {
    let state = &config.state.directory;
    durable::private_directory(state).map_err(Error::io(state))?;
    let _lock = durable::lock_directory(state).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => StartError::StateLocked { path: state.clone() }.into(),
        _ => Error::io(state)(error),
    })?;
    let mut witnesses = guard::witnesses(backup, config).await?;
    guard::judge(backup, &witnesses, accept_older)?;
    let staging = Staging::make(state.join(".restore"), config.audit.directory.join(".restore"))?;
    let opened = prove(backup, config, &staging, report).await?;
    if matches!(config.ledger, LedgerConfig::Token {}) {
        witnesses.push(("the token".to_owned(), Seen::of(&opened.standing)));
    }
    let older = guard::judge(backup, &witnesses, accept_older)?;
    let moves = moves(&staging, config)?;
    if let Some((_, occupied)) = moves.iter().find(|(_, to)| fs::symlink_metadata(to).is_ok()) {
        return Err(Error::Occupied(occupied.clone()));
    }
    configuration(backup, path, config, report)?;
    for (from, to) in &moves {
        fs::rename(from, to).and_then(|()| durable::sync_parent(to)).map_err(Error::io(to))?;
    }
    remember(&opened, config, &witnesses)?;
    report(
        "restored",
        &format!("{} file(s) in {} and {}", moves.len(), state.display(), config.audit.directory.display()),
    );
    if older {
        report("remark", "what was done after the backup is lost, but for what the token knows");
    }
    if !backup.about.trail {
        report("remark", "the trail is not in this backup: put its files back before the start");
    }
    Ok(opened.token.close().map_err(StartError::from)?)
}

/// What goes where. The memory of the ledger is last: without it a start looks at everything anew.
fn moves(staging: &Staging, config: &Config) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
    let mut moves = Vec::new();
    if let LedgerConfig::File { path } = &config.ledger {
        moves.push((staging.ledger(), path.clone()));
    }
    for (from, to) in [(&staging.trail, &config.audit.directory), (&staging.state, &config.state.directory)] {
        let mut names = Vec::new();
        for entry in fs::read_dir(from).map_err(Error::io(from))? {
            names.push(entry.map_err(Error::io(from))?.file_name());
        }
        names.retain(|name| from.join(name) != staging.ledger());
        names.sort_by_key(|name| name == MARKER);
        moves.extend(names.into_iter().map(|name| (from.join(&name), to.join(&name))));
    }
    Ok(moves)
}

/// What staff have written is kept where it is there already.
fn configuration(backup: &Backup, path: &Path, config: &Config, report: Report<'_>) -> Result<(), Error> {
    let keys_file = config.auth.as_ref().and_then(|auth| auth.keys_file.clone());
    let files = [(CONFIG, Some(path.to_owned())), (API_KEYS, keys_file)];
    for (name, to) in files.into_iter().filter_map(|(name, to)| Some((name, to?))) {
        let Some(bytes) = backup.small.get(name) else { continue };
        match fs::read(&to) {
            Ok(there) if there == *bytes => {}
            Ok(_) => report("kept", &format!("{} is there, and differs from that in the backup", to.display())),
            Err(_) => {
                durable::replace(&to, bytes).map_err(|error| {
                    let backup = backup.path.display();
                    Error::Refused(format!(
                        "{0}: {error}; put it there as root: tar -xOf {backup} {name} > {0}",
                        to.display()
                    ))
                })?;
                report("written", &to.display().to_string());
            }
        }
    }
    Ok(())
}

/// Whatever anybody remembers is remembered on: of a ledger file that is behind, the start says so.
fn remember(opened: &Opened, config: &Config, witnesses: &[guard::Witness]) -> Result<(), Error> {
    let marker = Marker::new(&config.state.directory, &opened.token.identity().serial, None);
    let furthest = witnesses.iter().map(|(_, seen)| seen).max_by_key(|seen| seen.ledger_records);
    let own = Seen::of(&opened.standing);
    let mut seen = furthest.filter(|seen| seen.ledger_records > own.ledger_records).cloned().unwrap_or(own);
    seen.revoked.extend(witnesses.iter().flat_map(|(_, seen)| seen.revoked.iter().cloned()));
    Ok(marker.remember(seen).map_err(StartError::from)?)
}
