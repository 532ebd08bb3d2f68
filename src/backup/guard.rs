//! The guard against going back: a backup whose ledger is behind what somebody remembers must not put a revoked key
//! into use again. An operator who has no later one accepts that very backup, by the head of its ledger; what others
//! remember is then kept, not forgotten.

use super::{Backup, Error};
use crate::{
    app,
    config::{Config, LedgerConfig},
    key::{
        Ledger, Standing,
        seen::{Loss, Seen},
    },
    ledger_file::FileLedger,
    service::marker::Marker,
    timestamp::Timestamp,
};

/// Somebody remembers more than the backup does.
#[derive(Debug, thiserror::Error)]
#[error(
    "the backup of {made} is behind {witness}: {what}. Restore a later one. Where there is none, go on with --accept-older {head}: \
     keys then stay revoked all the same, and what the backup does not know of is lost"
)]
pub struct Older {
    made: Timestamp,
    witness: String,
    what: String,
    head: String,
}

/// Who remembers how far.
pub(super) type Witness = (String, Seen);

/// Whoever can be asked without the token: the state directory, a ledger file, the trail, and Redis.
pub(super) async fn witnesses(backup: &Backup, config: &Config) -> Result<Vec<Witness>, Error> {
    let marker = Marker::new(&config.state.directory, &backup.about.token_serial, None);
    let seen = marker.seen().map_err(app::StartError::from)?;
    let mut all: Vec<Witness> = seen.into_iter().map(|seen| (marker.path().display().to_string(), seen)).collect();
    if let LedgerConfig::File { path } = &config.ledger
        && path.exists()
    {
        let records = FileLedger::open(path).map_err(Error::io(path))?.read().await.map_err(app::StartError::from)?;
        let standing = Standing::fold(&config.signer.id, records).map_err(app::StartError::from)?;
        all.push((path.display().to_string(), Seen::of(&standing)));
    }
    let trail = app::revoked_by_the_trail(config, &backup.standing)?;
    all.push((format!("the audit trail in {}", config.audit.directory.display()), trail));
    let fleet = app::fleet_memory(config).await?;
    all.extend(fleet.map(|seen| ("the fleet's memory in Redis".to_owned(), seen)));
    Ok(all)
}

/// Whether the backup is behind one of them, and was accepted all the same.
pub(super) fn judge(backup: &Backup, witnesses: &[Witness], accepted: Option<&str>) -> Result<bool, Older> {
    let behind = witnesses.iter().find_map(|(witness, seen)| Some((witness, seen, seen.loss(&backup.standing)?)));
    let Some((witness, seen, loss)) = behind else { return Ok(false) };
    let head = &backup.about.seen.ledger_head;
    if accepted == Some(head) {
        return Ok(true);
    }
    let what = what(backup, seen, &loss);
    Err(Older { made: backup.about.created_at, witness: witness.clone(), what, head: head.clone() })
}

fn what(backup: &Backup, seen: &Seen, loss: &Loss) -> String {
    let forgotten = backup.standing.keys().filter(|key| key.revoked.is_none());
    let revoked: Vec<_> = forgotten
        .filter(|key| seen.revoked.contains(&key.public_key.fingerprint()))
        .map(|key| key.id.to_string())
        .collect();
    let changes = match loss {
        Loss::Records { seen, found } => format!("it knows {found} changes of the keys of {seen}"),
        Loss::Rewritten { sequence } => format!("its change {sequence} of the keys is another one"),
        Loss::Revocation { .. } => "it does not know every revocation".into(),
    };
    if revoked.is_empty() { changes } else { format!("{changes}; {} was revoked since", revoked.join(", ")) }
}
