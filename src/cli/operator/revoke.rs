//! `revoke` and `emergency`: what cannot be undone.

use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};

use super::{
    ask::{Change, Consent},
    failure::Failure,
    paint::{Tone, facts},
    session::Session,
    value::{items, text, truth},
};
use crate::{key::RevocationReason, timestamp::Timestamp};

fn reasons() -> PossibleValuesParser {
    PossibleValuesParser::new(RevocationReason::ALL.map(RevocationReason::as_str))
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Revoke {
    key_id: String,
    #[arg(long, value_parser = reasons())]
    reason: String,
    /// Since when somebody else may have had it: RFC 3339, such as 2026-01-31T09:30:00Z.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    compromised_at: Option<Timestamp>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    pub(super) change: Change,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Emergency {
    /// The key to revoke [default: the active one of the primary]; its successor is made on the same token.
    key_id: Option<String>,
    #[arg(long, default_value = "compromised", value_parser = reasons())]
    reason: String,
    /// Since when somebody else may have had it: RFC 3339, such as 2026-01-31T09:30:00Z.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    compromised_at: Option<Timestamp>,
    /// More about it, for the record.
    #[arg(long, value_name = "TEXT")]
    notes: Option<String>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    pub(super) change: Change,
}

pub(super) fn revoke(options: &Revoke, session: &Session) -> Result<(), Failure> {
    let key = session.get(&format!("/api/v1/keys/{}", options.key_id))?.value;
    let about = format!(
        "Revoke {} ({}, {}, {}).\nNo appliance will sign with it, and everything it has signed will be refused. This cannot be undone.{}",
        options.key_id,
        text(&key, "/state"),
        text(&key, "/algorithm"),
        options.reason,
        if text(&key, "/state") == "active" {
            "\nIt is the key that signs: nothing is signed until you rotate. `emergency` does both."
        } else {
            ""
        },
    );
    options.consent.obtain("revoke", &about)?;
    let mut body = Map::new();
    body.insert("reason".into(), json!(options.reason));
    body.insert("initiated_by".into(), json!(options.change.by.name()));
    options.compromised_at.map(|at| body.insert("compromised_at".into(), json!(at)));
    let path = format!("/api/v1/keys/{}/revoke", options.key_id);
    let answer = options.change.post(session, &path, &body.into())?;
    session.show(&answer, |revoked| {
        let newly = if truth(revoked, "/newly_revoked") { "" } else { ", as it was before" };
        facts(&[
            ("key", text(revoked, "/key/key_id").to_owned()),
            ("state", Tone::Bad.paint(text(revoked, "/key/state")) + newly),
            ("safe after", safe(revoked)),
        ]);
    });
    Ok(())
}

pub(super) fn emergency(options: &Emergency, session: &Session) -> Result<(), Failure> {
    let which = options.key_id.as_deref().unwrap_or("the active key");
    let about = format!(
        "Emergency: revoke {which} ({}), make a new key, sign with that one.\nEverything that the revoked key has signed will be refused. This cannot be undone.",
        options.reason
    );
    options.consent.obtain("emergency", &about)?;
    let mut body = Map::new();
    body.insert("reason".into(), json!(options.reason));
    body.insert("initiated_by".into(), json!(options.change.by.name()));
    options.key_id.as_ref().map(|id| body.insert("key_id".into(), json!(id)));
    options.compromised_at.map(|at| body.insert("compromised_at".into(), json!(at)));
    options.notes.as_ref().map(|notes| body.insert("notes".into(), json!(notes)));
    let answer = options.change.post(session, "/api/v1/keys/emergency", &body.into())?;
    session.show(&answer, |ended| {
        facts(&[
            ("revoked", Tone::Bad.paint(text(ended, "/revoked_key/key_id"))),
            ("signs now", Tone::Good.paint(text(ended, "/active_key/key_id"))),
            ("fingerprint", text(ended, "/active_key/fingerprint").to_owned()),
            ("safe after", safe(ended)),
        ]);
    });
    Ok(())
}

/// How long it took until no appliance could sign with the key.
fn safe(answer: &Value) -> String {
    let seconds = answer["time_to_safe_seconds"].as_f64().unwrap_or_default();
    let confirmed: Vec<_> = items(answer, "/confirmed_by").iter().filter_map(Value::as_str).collect();
    let by = if confirmed.is_empty() { String::new() } else { format!(", confirmed by {}", confirmed.join(", ")) };
    format!("{seconds:.2} s{by}")
}
