//! The one screen: what it shows, in colour only where somebody sees it.

use super::Desk;
use crate::support::{appliance::BINARY, tool};

const ESCAPE: char = '\u{1b}';

#[test]
fn it_shows_keys_on_a_time_line_and_what_to_look_at() {
    let desk = Desk::new();
    desk.run(&["status"]).prints(&[
        "OK: it signs",
        "token",
        "nonce_store",
        "audit",
        "veid-signer-test:1",
        "rotate in ",
        "none",
    ]);
    desk.run(&["rotate", "--overlap", "3h"]).prints(&[]);
    let shown = desk.run(&["status"]).prints(&[
        "now",
        "overlap ends in 2 h 59 min",
        "▲",
        "the overlap of rotation-2 ends in 2 h",
    ]);
    let line = |key: &str| shown.lines().find(|line| line.contains(key)).unwrap();
    assert!(line("veid-signer-test:2").contains("┿─────"), "{shown}");
    assert!(line("veid-signer-test:1  rotating").contains('┅'), "{shown}");
    assert!(!shown.contains(ESCAPE), "no terminal, no colour: {shown}");
    desk.run(&["revoke", "veid-signer-test:1", "--reason", "compromised", "--yes"]).prints(&[]);
    desk.run(&["status"]).prints(&["revoked", "×", "  compromised "]);
}

#[test]
fn it_ends_with_69_when_nothing_can_be_signed() {
    let desk = Desk::new();
    desk.run(&["revoke", "veid-signer-test:1", "--reason", "compromised", "--yes"]).prints(&[]);
    let shown = desk.run(&["status"]);
    assert_eq!(shown.code, 69, "{shown:?}");
    assert!(
        shown.printed.contains("UNAVAILABLE: nothing can be signed") && shown.printed.contains("no key is active"),
        "{shown:?}"
    );
    let json = desk.run(&["status", "--json"]);
    let seen: serde_json::Value = serde_json::from_str(&json.printed).unwrap();
    assert_eq!((json.code, &seen["health"]["healthy"]), (69, &false.into()));
    assert_eq!(seen["signer"]["keys"], desk.signer.get("/api/v1/keys").ok());
}

/// As it is on a terminal.
fn on_a_terminal(desk: &Desk, environment: &str) -> String {
    let command = format!("{environment} TERM=xterm {BINARY} status --socket {}", desk.socket().display());
    tool::text(&tool::output("script", &["-qec", &command, "/dev/null"], &[], b"").stdout)
}

#[test]
fn a_terminal_gets_colours_unless_it_wants_none() {
    let desk = Desk::new();
    let coloured = on_a_terminal(&desk, "env -u NO_COLOR");
    assert!(coloured.contains("\u{1b}[32m"), "{coloured:?}");
    let plain = on_a_terminal(&desk, "env NO_COLOR=1");
    assert!(plain.contains("it signs") && !plain.contains(ESCAPE), "{plain:?}");
}
