//! `nonces stats` and `nonces cleanup`.

use clap::Subcommand;
use comfy_table::Cell;
use serde_json::{Value, json};

use super::{
    Look,
    failure::Failure,
    paint::{Tone, facts, table},
    session::{Connection, Session},
    value::{items, minute, number, text},
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// How full the store is, and who holds most.
    Stats(Look),
    /// Forget now what its window has ended for; it happens every minute by itself.
    Cleanup(Look),
}

impl Command {
    pub(super) fn connection(&self) -> &Connection {
        match self {
            Self::Stats(options) | Self::Cleanup(options) => &options.connection,
        }
    }
}

pub(super) fn run(command: &Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Stats(_) => {
            let answer = session.get("/api/v1/nonce/stats")?;
            session.show(&answer, stats);
        }
        Command::Cleanup(_) => {
            let answer = session.post("/api/v1/nonce/cleanup", &json!({}))?;
            session.show(&answer, |done| {
                let (expired, used) = (number(done, "/by_status/expired"), number(done, "/by_status/used"));
                anstream::println!("{} forgotten: {expired} expired, {used} used", number(done, "/removed"));
            });
        }
    }
    Ok(())
}

/// How full, as a bar and in words.
pub(super) fn fill(stats: &Value) -> String {
    const CELLS: f64 = 20.0;
    let share = stats["fill"].as_f64().unwrap_or_default().clamp(0.0, 1.0);
    let tone = match share {
        ..0.7 => Tone::Good,
        0.7..0.9 => Tone::Notice,
        _ => Tone::Bad,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 20")]
    let full = (share * CELLS).ceil() as usize;
    let bar = tone.paint("█".repeat(full)) + &Tone::Quiet.paint("░".repeat(20 - full));
    let (total, capacity) = (number(stats, "/total"), number(stats, "/capacity"));
    format!("{bar} {total} of {capacity}")
}

fn stats(stats: &Value) {
    let redis = match stats.pointer("/redis/memory_used_bytes").and_then(Value::as_u64) {
        Some(bytes) => {
            let policy = text(stats, "/redis/eviction_policy");
            let ahead = stats.pointer("/redis/clock_ahead_seconds").and_then(Value::as_f64).unwrap_or_default();
            format!("{} MiB used, {policy}, clock {ahead:+.3} s against ours", bytes >> 20)
        }
        None => String::new(),
    };
    facts(&[
        ("store", text(stats, "/store").to_owned()),
        ("fill", fill(stats)),
        ("outstanding", number(stats, "/by_status/outstanding").to_string()),
        ("used", number(stats, "/by_status/used").to_string()),
        ("expired so far", number(stats, "/by_status/expired_total").to_string()),
        ("last cleanup", minute(stats, "/last_cleanup")),
        ("Redis", redis),
    ]);
    let holders = items(stats, "/per_issuer");
    if !holders.is_empty() {
        anstream::println!();
        let bound = number(stats, "/outstanding_per_issuer");
        let row = |one: &Value| {
            vec![Cell::new(text(one, "/issuer")), Cell::new(number(one, "/outstanding")), Cell::new(bound)]
        };
        table(&["client", "holds", "of"], holders.iter().map(row).collect(), "");
    }
}
