//! `rotate`, `complete`, `cancel`, `rotations`.

use clap::builder::PossibleValuesParser;
use comfy_table::Cell;
use serde_json::{Map, Value, json};

use super::{
    ask::Change,
    failure::Failure,
    paint::{Tone, facts, table, word},
    session::Session,
    value::{items, minute, relative, text, time, truth},
};
use crate::{clock::Clock, exit_code::ExitCode, key::Algorithm};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Rotate {
    /// Why.
    #[arg(long, default_value = "rotation", value_name = "TEXT")]
    reason: String,
    /// More about it, for the record.
    #[arg(long, value_name = "TEXT")]
    notes: Option<String>,
    /// Without overlap, also while another rotation runs: the old key retires at once. For the role security.
    #[arg(long)]
    emergency: bool,
    /// How long the old key is `rotating` [default: that of the configuration]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "emergency")]
    overlap: Option<std::time::Duration>,
    /// Of the new key [default: that of the configuration]
    #[arg(long, value_parser = PossibleValuesParser::new(Algorithm::ALL.map(Algorithm::as_str)))]
    algorithm: Option<String>,
    /// Whose key: primary, or a standby with keys of its own [default: primary]
    #[arg(long, value_name = "NAME")]
    token: Option<String>,
    /// Only look: the checklist before a rotation.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pub(super) change: Change,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Complete {
    /// The rotation [default: the one that is in progress]
    rotation_id: Option<String>,
    /// Before the overlap ends: verifiers that do not know the new key yet are then on their own.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub(super) change: Change,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Cancel {
    /// The rotation [default: the one that is in progress]
    rotation_id: Option<String>,
    #[command(flatten)]
    pub(super) change: Change,
}

impl Rotate {
    fn body(&self) -> Value {
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| body.insert(name.into(), value);
        put("reason", json!(self.reason));
        put("initiated_by", json!(self.change.by.name()));
        self.notes.as_ref().map(|notes| put("notes", json!(notes)));
        self.emergency.then(|| put("emergency", json!(true)));
        self.overlap.map(|overlap| put("overlap_seconds", json!(overlap.as_secs())));
        self.algorithm.as_ref().map(|algorithm| put("algorithm", json!(algorithm)));
        self.token.as_ref().map(|token| put("token", json!(token)));
        self.dry_run.then(|| put("dry_run", json!(true)));
        body.into()
    }
}

pub(super) fn rotate(options: &Rotate, session: &Session) -> Result<(), Failure> {
    let answer = options.change.post(session, "/api/v1/keys/rotate", &options.body())?;
    if !options.dry_run {
        session.show(&answer, rotated);
        return Ok(());
    }
    session.show(&answer, checklist);
    if truth(&answer.value, "/would_rotate") { Ok(()) } else { Err(Failure::Said(ExitCode::Refused)) }
}

fn checklist(answer: &Value) {
    for check in items(answer, "/checks") {
        let mark = if truth(check, "/ok") { Tone::Good.paint("ok  ") } else { Tone::Bad.paint("fail") };
        anstream::println!("{mark}  {:<16}  {}", text(check, "/item"), text(check, "/detail"));
    }
    anstream::println!("{}", if truth(answer, "/would_rotate") { "It would rotate." } else { "It would not rotate." });
}

fn rotated(rotation: &Value) {
    let now = Clock::system().now();
    let overlap = match time(rotation, "/overlap_until") {
        Some(until) if text(rotation, "/status") == "in_progress" => {
            format!("until {} ({})", minute(rotation, "/overlap_until"), relative(until, now))
        }
        Some(_) | None => String::new(),
    };
    let status = text(rotation, "/status");
    facts(&[
        ("rotation", text(rotation, "/rotation_id").to_owned()),
        ("status", Tone::of(status).paint(status)),
        ("signs now", text(rotation, "/new_key_id").to_owned()),
        ("replaced", text(rotation, "/old_key_id").to_owned()),
        ("overlap", overlap),
    ]);
}

/// The rotation that is meant.
fn named(given: Option<&String>, session: &Session) -> Result<String, Failure> {
    if let Some(id) = given {
        return Ok(id.clone());
    }
    let answer = session.get("/api/v1/rotations")?;
    let open = |rotation: &&Value| ["in_progress", "overlap_ended"].contains(&text(rotation, "/status"));
    let found: Vec<_> = items(&answer.value, "").iter().filter(open).collect();
    let id = |rotation: &Value| text(rotation, "/rotation_id").to_owned();
    // The newest of one token; whoever has several says which token's.
    let (Some(newest), true) = (found.first(), found.iter().all(|one| token_of(one) == token_of(found[0]))) else {
        let why = if found.is_empty() {
            "no rotation is in progress: there is nothing to complete or cancel".to_owned()
        } else {
            let ids = found.into_iter().map(id).collect::<Vec<_>>().join(", ");
            format!("rotations on several tokens are in progress: name one of {ids}")
        };
        eprintln!("verification-signer: {why}");
        return Err(Failure::Said(ExitCode::Refused));
    };
    Ok(id(newest))
}

/// Where there are several.
fn token_of(rotation: &Value) -> &str {
    text(rotation, "/token")
}

pub(super) fn complete(options: &Complete, session: &Session) -> Result<(), Failure> {
    let id = named(options.rotation_id.as_ref(), session)?;
    let body = json!({ "force": options.force, "initiated_by": options.change.by.name() });
    let path = format!("/api/v1/rotations/{id}/complete");
    let answer = options.change.post(session, &path, &body)?;
    session.show(&answer, ended);
    Ok(())
}

pub(super) fn cancel(options: &Cancel, session: &Session) -> Result<(), Failure> {
    let id = named(options.rotation_id.as_ref(), session)?;
    let body = json!({ "initiated_by": options.change.by.name() });
    let path = format!("/api/v1/rotations/{id}/cancel");
    let answer = options.change.post(session, &path, &body)?;
    session.show(&answer, ended);
    Ok(())
}

/// Which key signs is not said here: a cancelled rotation has given the old one back.
fn ended(rotation: &Value) {
    let status = text(rotation, "/status");
    facts(&[
        ("rotation", text(rotation, "/rotation_id").to_owned()),
        ("status", Tone::of(status).paint(status)),
        ("old key", text(rotation, "/old_key_id").to_owned()),
        ("new key", text(rotation, "/new_key_id").to_owned()),
    ]);
}

pub(super) fn list(session: &Session) -> Result<(), Failure> {
    let answer = session.get("/api/v1/rotations")?;
    session.show(&answer, |rotations| {
        let rows = items(rotations, "").iter().map(row).collect();
        let head = ["rotation", "status", "old key", "new key", "started", "overlap until", "by", "reason"];
        table(&head, rows, "Nothing was rotated yet.");
    });
    Ok(())
}

fn row(rotation: &Value) -> Vec<Cell> {
    let plain = |pointer| Cell::new(text(rotation, pointer));
    let reason = match text(rotation, "/notes") {
        "" => text(rotation, "/reason").to_owned(),
        notes => format!("{}: {notes}", text(rotation, "/reason")),
    };
    vec![
        plain("/rotation_id"),
        word(text(rotation, "/status")),
        plain("/old_key_id"),
        plain("/new_key_id"),
        Cell::new(minute(rotation, "/started_at")),
        Cell::new(minute(rotation, "/overlap_until")),
        plain("/initiated_by"),
        Cell::new(reason),
    ]
}
