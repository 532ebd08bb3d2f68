//! What the service tells systemd, read from the socket that systemd would read.

use std::{
    os::unix::net::UnixDatagram,
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{
    appliance::{Appliance, BINARY},
    signer::first_key_here,
    softhsm::SoftHsm,
    tool,
};

/// Reads messages until one has all these parts; those before it are returned with it.
fn hear(socket: &UnixDatagram, parts: &[&str]) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(90);
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        assert!(Instant::now() < deadline, "never heard {parts:?}, but {heard:?}");
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let message = tool::text(&buffer[..length]);
        let found = parts.iter().all(|part| message.contains(part));
        heard.push(message);
        if found {
            return heard;
        }
    }
}

#[test]
fn systemd_hears_of_readiness_life_reload_and_end() {
    let (token, home) = (SoftHsm::new(), tempfile::tempdir().unwrap());
    let config = token.config(home.path(), &first_key_here(&token, "", "[fleet]\nsingle = true"));
    let socket = UnixDatagram::bind(home.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["serve", "--config"]).arg(&config).envs(token.environment());
    command.env("NOTIFY_SOCKET", home.path().join("notify")).env("WATCHDOG_USEC", "3000000");
    let signer = Appliance::start(command, home.path()).unwrap_or_else(|(status, log)| panic!("{status}: {log}"));

    let before = hear(&socket, &["READY=1", "STATUS=serving"]);
    assert!(!before.iter().any(|message| message.contains("STOPPING")), "{before:?}");
    for _ in 0..3 {
        hear(&socket, &["WATCHDOG=1"]);
    }
    signer.signal("HUP");
    hear(&socket, &["RELOADING=1", "MONOTONIC_USEC="]);
    hear(&socket, &["READY=1"]);
    signer.attest();
    signer.signal("TERM");
    let last = hear(&socket, &["STOPPING=1", "EXTEND_TIMEOUT_USEC="]).pop().unwrap();
    let patience: u64 =
        last.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC=")).unwrap().parse().unwrap();
    // The drain, and what comes after it.
    assert!(patience > 10_000_000, "{last}");
    assert_eq!(signer.wait().code(), Some(0));
}
