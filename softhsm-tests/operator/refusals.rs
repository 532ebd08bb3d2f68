//! What goes wrong is said plainly: what, why, what to do; and the exit code says it to programs.

use std::{fs, process::Command};

use super::{Desk, Ended};
use crate::support::appliance::BINARY;

#[test]
fn a_refusal_says_what_why_and_what_to_type() {
    let desk = Desk::new();
    desk.run(&["keys", "veid-signer-test:9"])
        .says(76, &["There is no such key", "why  ", "veid-signer-test:9", "`verification-signer keys`"]);
    desk.run(&["rotate"]).prints(&[]);
    desk.run(&["rotate"]).says(
        76,
        &["A rotation is in progress", "rotation-2", "`verification-signer complete`", "409 rotation-in-progress"],
    );
    desk.run(&["complete"]).says(76, &["The overlap has not ended", "--force"]);
    desk.run(&["complete", "not a name"]).says(64, &["copy it from the list"]);
    desk.run(&["audit", "search", "--since", "yesterday"]).says(64, &["RFC 3339"]);
    desk.run(&["rotate", "--algorithm", "RSA"]).says(64, &["P-256"]);
}

fn run(arguments: &[&str]) -> Ended {
    Command::new(BINARY).args(arguments).output().unwrap().into()
}

#[test]
fn an_appliance_that_is_not_there_is_named_by_its_socket() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("api.sock");
    let socket = socket.to_str().unwrap();
    run(&["status", "--socket", socket]).says(69, &[socket, "systemctl status"]);
    // What an appliance left there that was killed.
    drop(std::os::unix::net::UnixListener::bind(socket).unwrap());
    run(&["keys", "--socket", socket]).says(69, &[socket, "systemctl status"]);
}

#[test]
fn the_configuration_says_where_the_socket_is() {
    let desk = Desk::new();
    let config = desk.signer.config().to_str().unwrap();
    run(&["keys", "--config", config]).prints(&["veid-signer-test:1"]);
    let text = fs::read_to_string(config).unwrap();
    let without = desk.place.path().join("without.toml");
    let lines = text.lines().filter(|line| !line.starts_with("unix_socket"));
    fs::write(&without, lines.collect::<Vec<_>>().join("\n")).unwrap();
    run(&["keys", "--config", without.to_str().unwrap()]).says(78, &["opens no socket", "http.unix_socket = "]);
    run(&["keys", "--config", "/nowhere/config.toml"]).says(78, &["/nowhere/config.toml"]);
    run(&["keys", "--config", config, "--socket", "/x"]).says(64, &["cannot be used with"]);
}
