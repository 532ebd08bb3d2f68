//! `backup create`: beside a running appliance or without it. Nothing but the backup is written.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use der::pem::{LineEnding, encode_string};

use super::{
    Error, container,
    contents::{self, ABOUT, API_KEYS, AUDIT_KEYS, About, CONFIG, LEDGER, Member, Record},
    manifest::{self, Manifest, STATEMENT, SUMS},
};
use crate::{
    app::{Opened, OwnTokens},
    config::Config,
    key::{PublicKey, StoredRecord, seen::Seen},
    timestamp::Timestamp,
    token::AuditKey,
};

/// What was made.
pub struct Created {
    pub about: About,
    pub members: usize,
    pub bytes: u64,
    /// With which it verifies.
    pub keys: Vec<PublicKey>,
    /// Tokens that are away: certificates of their keys are not in it.
    pub away: Vec<String>,
}

/// Makes a backup. `config` is that of the file at `path`.
pub async fn create(
    path: &Path,
    config: &Config,
    output: &Path,
    trail: bool,
    now: Timestamp,
) -> Result<Created, Error> {
    let opened = Opened::open(config).await?;
    let records = opened.records(config).await?;
    let keys = opened.audit_keys(config).await?;
    let key = keys
        .first()
        .ok_or_else(|| Error::Refused("there is no audit key on the token yet: start the appliance once".into()))?;
    let about = about(config, &opened, trail, now);
    let mut members = vec![Member::bytes(ABOUT, serde_json::to_vec_pretty(&about).expect("text and numbers"))];
    members.extend(of_configuration(path, config)?);
    let tokens = opened.own_tokens(config).await?;
    members.extend(of_keys(&opened, &tokens, &records, &keys).await?);
    tokens.close();
    members.extend(contents::of_state(config)?);
    if trail {
        members.extend(contents::of_trail(config)?);
    }
    let statement = sign(&opened, key, config, &mut members, now).await?;
    opened.token.close().map_err(crate::app::StartError::from)?;
    let bytes = write(output, &statement, &mut members)?;
    let keys = keys.iter().map(|key| key.public_key().clone()).collect();
    Ok(Created { about, members: members.len(), bytes, keys, away: tokens.away })
}

fn about(config: &Config, opened: &Opened, trail: bool, now: Timestamp) -> About {
    let identity = opened.token.identity();
    About {
        format: 1,
        created_at: now.truncated_to_seconds(),
        signer_id: config.signer.id.to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        token_uri: identity.uri().to_string(),
        token_serial: identity.serial.clone(),
        trail,
        seen: Seen::of(&opened.standing),
    }
}

/// The files that staff have written, and the hashes of bearer keys.
fn of_configuration(path: &Path, config: &Config) -> Result<Vec<Member>, Error> {
    let mut members = vec![Member::bytes(CONFIG, fs::read(path).map_err(Error::io(path))?)];
    if let Some(path) = config.auth.as_ref().and_then(|auth| auth.keys_file.as_ref()) {
        members.push(Member::bytes(API_KEYS, fs::read(path).map_err(Error::io(path))?));
    }
    Ok(members)
}

/// The ledger, and the public halves in the forms in which people use them.
async fn of_keys(
    opened: &Opened,
    tokens: &OwnTokens,
    records: &[StoredRecord],
    keys: &[AuditKey],
) -> Result<Vec<Member>, Error> {
    let ledger: Vec<_> = records.iter().map(Record::from).collect();
    let audit: String = keys.iter().map(|key| key.public_key().to_pem()).collect();
    let mut members = vec![
        Member::bytes(LEDGER, serde_json::to_vec_pretty(&ledger).expect("text")),
        Member::bytes(AUDIT_KEYS, audit),
    ];
    for key in opened.standing.keys() {
        let number = key.id.sequence;
        members.push(Member::bytes(contents::public_key(number), key.public_key.to_pem()));
        let Some(token) = tokens.with(key).await else { continue };
        let chain = token.certificates(key.object_id.clone()).await.map_err(crate::app::StartError::from)?;
        if !chain.is_empty() {
            members.push(Member::bytes(contents::certificates(number), chain_pem(&chain)));
        }
    }
    Ok(members)
}

/// As the appliance serves it.
fn chain_pem(chain: &[Vec<u8>]) -> String {
    let one = |der: &Vec<u8>| encode_string("CERTIFICATE", LineEnding::LF, der).expect("any bytes have a PEM form");
    chain.iter().map(one).collect()
}

/// Puts the manifest before the members; the statement over it.
async fn sign(
    opened: &Opened,
    key: &AuditKey,
    config: &Config,
    members: &mut Vec<Member>,
    now: Timestamp,
) -> Result<String, Error> {
    let mut manifest = Manifest::default();
    for member in members.iter_mut() {
        let hash = member.hash().map_err(Error::io(Path::new(&member.name)))?;
        manifest.0.push((member.name.clone(), hash));
    }
    let head = manifest.head(manifest::origin(&config.signer.id, now.truncated_to_seconds()));
    let signature = opened.token.sign_tree_head(key, &head.text()).await.map_err(crate::app::StartError::from)?;
    members.insert(0, Member::bytes(SUMS, manifest.to_text()));
    let unsuited = || Error::Refused("the audit key is of a kind that signs no notes".into());
    head.note(key.public_key(), &signature).ok_or_else(unsuited)
}

fn write(output: &Path, statement: &str, members: &mut [Member]) -> Result<u64, Error> {
    let failed = || Error::io(output);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(output).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            Error::Occupied(output.to_owned())
        } else {
            failed()(error)
        }
    })?;
    let written = fill(&mut BufWriter::new(file), statement, members);
    if written.is_err() {
        // Half a backup is none.
        let _ = fs::remove_file(output);
    }
    written.map_err(failed())
}

fn fill(out: &mut BufWriter<File>, statement: &str, members: &mut [Member]) -> std::io::Result<u64> {
    container::write(out, STATEMENT, statement.len() as u64, &mut statement.as_bytes())?;
    for member in members {
        let (name, size) = (member.name.clone(), member.size);
        container::write(out, &name, size, &mut member.reader()?)?;
    }
    container::end(out)?;
    out.flush()?;
    out.get_ref().sync_all()?;
    Ok(out.get_ref().metadata()?.len())
}
