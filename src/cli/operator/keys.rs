//! `keys`: what there is, in which state, until when.

use comfy_table::Cell;
use serde_json::Value;

use super::{
    failure::Failure,
    paint::{self, Tone, facts, table, word},
    session::{Connection, Session},
    value::{items, minute, relative, span, text, time},
};
use crate::{clock::Clock, timestamp::Timestamp};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Options {
    /// All about this key.
    key_id: Option<String>,
    #[command(flatten)]
    pub(super) connection: Connection,
}

pub(super) fn run(options: &Options, session: &Session) -> Result<(), Failure> {
    match &options.key_id {
        Some(id) => {
            let answer = session.get(&format!("/api/v1/keys/{id}"))?;
            session.show(&answer, one);
        }
        None => {
            let answer = session.get("/api/v1/keys")?;
            session.show(&answer, list);
        }
    }
    Ok(())
}

fn list(keys: &Value) {
    let now = Clock::system().now();
    let rows = items(keys, "").iter().map(|key| row(key, now)).collect();
    table(&["key", "state", "algorithm", "activated", "until", "fingerprint"], rows, "There is no key yet.");
}

fn row(key: &Value, now: Timestamp) -> Vec<Cell> {
    let state = text(key, "/state");
    vec![
        Cell::new(text(key, "/key_id")),
        word(state),
        Cell::new(text(key, "/algorithm")),
        Cell::new(minute(key, "/activated_at")),
        Tone::Plain.cell(until(key, now)),
        Tone::Quiet.cell(text(key, "/fingerprint").chars().take(16).collect::<String>()),
    ]
}

/// What ends next for a key, or how it ended.
pub(super) fn until(key: &Value, now: Timestamp) -> String {
    let at = |pointer| time(key, pointer).map_or_else(String::new, |then| relative(then, now));
    match text(key, "/state") {
        "pending" => "waits for a rotation".into(),
        "rotating" => format!("overlap ends {}", at("/overlap_until")),
        "retired" => format!("retired {}", at("/retired_at")),
        "revoked" => format!("{} {}", text(key, "/revocation/reason"), at("/revocation/revoked_at")),
        "expired" => format!("expired {}", at("/expires_at")),
        _ => format!("expires {}", at("/expires_at")),
    }
}

fn one(key: &Value) {
    let now = Clock::system().now();
    let age = time(key, "/activated_at").map_or_else(String::new, |at| span(now.seconds_since(at)));
    let state = text(key, "/state");
    let revoked = match text(key, "/revocation/reason") {
        "" => String::new(),
        reason => {
            let (at, by) = (minute(key, "/revocation/revoked_at"), text(key, "/revocation/initiated_by"));
            format!("{at}, {reason}, by {by}")
        }
    };
    let place = format!("{} on token {}", text(key, "/token/object_label"), text(key, "/token/serial"));
    anstream::println!("{}  {}", paint::bold(text(key, "/key_id")), Tone::of(state).paint(state));
    facts(&[
        ("algorithm", text(key, "/algorithm").to_owned()),
        ("fingerprint", text(key, "/fingerprint").to_owned()),
        ("generated", minute(key, "/generated_at")),
        ("activated", minute(key, "/activated_at")),
        ("age", age),
        ("expires", minute(key, "/expires_at")),
        ("overlap until", minute(key, "/overlap_until")),
        ("retired", minute(key, "/retired_at")),
        ("revoked", revoked),
        ("compromised", minute(key, "/revocation/compromised_at")),
        ("private key destroyed", minute(key, "/private_key_destroyed_at")),
        ("object", place),
        ("object id", text(key, "/token/object_id").to_owned()),
    ]);
}
