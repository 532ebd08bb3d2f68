//! `status`: one screen on which everything is seen at once, and what to do next.

mod timeline;
mod warnings;

use serde_json::{Map, Value};

use super::{
    approvals,
    blocks::whom,
    failure::Failure,
    nonces,
    paint::{self, Tone, bold},
    session::Session,
    value::{items, minute, text, truth},
};
use crate::{clock::Clock, exit_code::ExitCode, timestamp::Timestamp};

/// What the screen is made of: a name for it in `--json`, and where it is read.
const PARTS: [(&str, &str); 7] = [
    ("health", "/healthz"),
    ("signer", "/api/v1/signer"),
    ("rotations", "/api/v1/rotations"),
    ("nonces", "/api/v1/nonce/stats"),
    ("approvals", "/api/v1/approvals"),
    ("blocks", "/api/v1/blocks"),
    ("alerts", "/api/v1/audit?severity=critical&limit=8"),
];

pub(super) fn run(session: &Session) -> Result<(), Failure> {
    let mut seen = Map::new();
    for (name, path) in PARTS {
        // What the caller's role may not read is a problem in its place; the rest is shown.
        seen.insert(name.to_owned(), session.look(path)?.value);
    }
    let seen = Value::Object(seen);
    if session.json {
        anstream::println!("{seen}");
    } else {
        screen(&seen, Clock::system().now());
    }
    if truth(&seen, "/health/healthy") { Ok(()) } else { Err(Failure::Said(ExitCode::Unavailable)) }
}

fn screen(seen: &Value, now: Timestamp) {
    head(seen, now);
    let width = paint::width().max(60);
    dependencies(&seen["health"], width);
    section("Keys");
    timeline::show(seen, now, width);
    section("Nonces");
    anstream::println!("  {}", nonces::fill(&seen["nonces"]));
    waiting(&seen["approvals"]);
    shut_out(&seen["blocks"]);
    alerts(&seen["alerts"]);
    section("Warnings");
    let warnings = warnings::all(seen, now);
    if warnings.is_empty() {
        anstream::println!("  {}", Tone::Good.paint("none"));
    }
    for warning in warnings {
        anstream::println!("  {} {warning}", Tone::Notice.paint("▲"));
    }
}

fn section(title: &str) {
    anstream::println!("\n{}", bold(title));
}

fn head(seen: &Value, now: Timestamp) {
    let status = text(seen, "/health/status");
    let tone = match status {
        "warning" => Tone::Notice,
        other => Tone::of(other),
    };
    let said = match status {
        "ok" => "it signs",
        "warning" => "it signs; see the warnings",
        "maintenance" => "out of service, by an operator",
        _ => "nothing can be signed",
    };
    let (signer, version) = (text(seen, "/signer/signer_id"), text(seen, "/signer/version"));
    let time = now.to_utc().to_string().get(..19).unwrap_or_default().replace('T', " ");
    let signer = if signer.is_empty() { "verification-signer" } else { signer };
    anstream::println!(
        "{} {}  {}",
        tone.paint("●"),
        bold(signer),
        tone.paint(format_args!("{}: {said}", status.to_uppercase()))
    );
    let name = text(seen, "/signer/name");
    anstream::println!("  {}", Tone::Quiet.paint(format_args!("verification-signer {version}  {name}  {time}Z")));
}

fn dependencies(health: &Value, width: usize) {
    anstream::println!();
    for one in items(health, "/dependencies") {
        let healthy = truth(one, "/healthy");
        let (tone, detail) = if healthy {
            (Tone::Good, clipped(text(one, "/detail"), width - 17))
        } else {
            (Tone::Bad, text(one, "/detail").to_owned())
        };
        anstream::println!("  {} {:<12} {detail}", tone.paint("●"), text(one, "/name"));
    }
}

/// One line; what is not healthy is told whole.
fn clipped(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

fn waiting(requests: &Value) {
    let open = |request: &&Value| ["pending", "approved"].contains(&text(request, "/status"));
    let open: Vec<_> = items(requests, "").iter().filter(open).collect();
    if open.is_empty() {
        return;
    }
    section("Waiting for approval");
    for request in open {
        let (id, status) = (text(request, "/approval_id"), text(request, "/status"));
        let (by, until) = (text(request, "/requested_by"), minute(request, "/expires_at"));
        anstream::println!(
            "  {id}  {}  {}  asked by {by}, until {until}",
            Tone::Notice.paint(status),
            approvals::what(request)
        );
    }
}

fn shut_out(blocks: &Value) {
    const SHOWN: usize = 5;
    let all = items(blocks, "");
    if all.is_empty() {
        return;
    }
    section("Shut out");
    for block in all.iter().take(SHOWN) {
        let until = match block["expires_at"].as_str() {
            Some(_) => format!("until {}", minute(block, "/expires_at")),
            None => "until it is lifted".into(),
        };
        anstream::println!("  {}  {until}: {}", Tone::Bad.paint(whom(block)), text(block, "/reason"));
    }
    if all.len() > SHOWN {
        anstream::println!("  and {} more: verification-signer blocks list", all.len() - SHOWN);
    }
}

/// Announcements are left out: what came of them is on record as well.
fn alerts(records: &Value) {
    const SHOWN: usize = 3;
    let over = |record: &&Value| text(record, "/outcome") != "pending";
    let records: Vec<_> = items(records, "").iter().filter(over).take(SHOWN).collect();
    if records.is_empty() {
        return;
    }
    section("Newest critical records");
    for record in records {
        let at = minute(record, "/timestamp");
        let (kind, actor) = (text(record, "/type"), text(record, "/actor"));
        let (action, resource) = (text(record, "/action"), text(record, "/resource"));
        anstream::println!("  {}  {}  {action} {resource} by {actor}", Tone::Quiet.paint(at), Tone::Bad.paint(kind));
    }
}
