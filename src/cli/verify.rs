//! `verify`: attestations, offline, with public keys alone.

use std::{
    collections::HashMap,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, de::IgnoredAny};

use super::refused;
use crate::{
    attestation::{Attestation, Invalid, judge},
    clock::Clock,
    exit_code::ExitCode,
    key::{KeyId, PublicKey, jwk::KeySet},
    timestamp::Timestamp,
};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// An attestation, or the answer to a batch of them; `-` reads standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A key set as GET /.well-known/jwks.json serves it: keys that were revoked are not in it.
    #[arg(long, value_name = "FILE", required_unless_present = "public_key")]
    jwks: Option<PathBuf>,
    /// Public keys as PEM. Whether one was revoked, only the signer can tell.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// The time at which they must count, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    at: Option<Timestamp>,
}

/// How far the clock of whoever verifies may be behind: the signer's own default.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// What a batch answers for each of its members.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    attestation: Option<Attestation>,
    #[serde(default, rename = "problem")]
    _problem: Option<IgnoredAny>,
}

/// Public keys by the fingerprint that attestations name.
struct Keys(HashMap<String, PublicKey>);

pub(super) fn run(options: &Options) -> Result<ExitCode, ExitCode> {
    let keys = Keys::read(options)?;
    let text = read(&options.file)?;
    let attestations = parse(&text).map_err(|error| {
        refused(&format!("NOT VERIFIED: {} is no attestation: {error}", options.file.display()), ExitCode::Data)
    })?;
    let now = options.at.unwrap_or_else(|| Clock::system().now());
    let mut invalid = 0;
    for attestation in &attestations {
        let id = &attestation.statement.id;
        match keys.judge(attestation, now) {
            Ok(()) => println!("valid    {id}  {}", attestation.proof.verification_method),
            Err(why) => {
                invalid += 1;
                println!("INVALID  {id}  {}", word(why));
            }
        }
    }
    if invalid > 0 || attestations.is_empty() {
        let what = format!("NOT VERIFIED: {invalid} of {} attestation(s)", attestations.len());
        return Err(refused(&what, ExitCode::Data));
    }
    println!("verified: ok ({} attestation(s))", attestations.len());
    Ok(ExitCode::Success)
}

/// The reason as the interface spells it.
fn word(why: Invalid) -> String {
    serde_json::to_value(why).ok().and_then(|word| word.as_str().map(ToOwned::to_owned)).unwrap_or_default()
}

fn parse(text: &[u8]) -> Result<Vec<Attestation>, serde_json::Error> {
    if text.trim_ascii_start().first() == Some(&b'[') {
        let entries: Vec<Entry> = serde_json::from_slice(text)?;
        Ok(entries.into_iter().filter_map(|entry| entry.attestation).collect())
    } else {
        serde_json::from_slice(text).map(|attestation| vec![attestation])
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ExitCode> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    read.map_err(|error| refused(&format!("{}: {error}", path.display()), ExitCode::Usage))
}

impl Keys {
    fn read(options: &Options) -> Result<Self, ExitCode> {
        let mut keys = Vec::new();
        let unusable = |path: &Path| refused(&format!("{}: no public keys in it", path.display()), ExitCode::Usage);
        if let Some(path) = &options.jwks {
            let set: KeySet = serde_json::from_slice(&read(path)?).map_err(|_| unusable(path))?;
            // A set may hold keys for other uses and of other kinds.
            keys.extend(set.keys.iter().filter_map(crate::key::jwk::Jwk::public_key));
        }
        if let Some(path) = &options.public_key {
            let text = String::from_utf8(read(path)?).map_err(|_| unusable(path))?;
            keys.extend(PublicKey::all_from_pem(&text).ok_or_else(|| unusable(path))?);
        }
        Ok(Self(keys.into_iter().map(|key| (key.fingerprint(), key)).collect()))
    }

    fn judge(&self, attestation: &Attestation, now: Timestamp) -> Result<(), Invalid> {
        let (statement, proof) = (&attestation.statement, &attestation.proof);
        let key = self.0.get(statement.issuer.key_fingerprint.as_str()).ok_or(Invalid::UnknownKey)?;
        let named = proof.verification_method.as_str().rsplit_once('#').and_then(|(_, id)| KeyId::parse(id));
        judge(attestation, &named.ok_or(Invalid::VerificationMethodMismatch)?, key)?;
        statement.counts_at(now, now.plus(CLOCK_SKEW))
    }
}
