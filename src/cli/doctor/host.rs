//! The machine: its clock, and what holds the process in.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use super::finding::Finding;
use crate::config::Config;

/// How far a file may have been written in the future: file systems round.
const ROUNDING: Duration = Duration::from_secs(2);

pub(super) fn look(config: &Config) -> Vec<Finding> {
    vec![clock(config), user(), sandbox()]
}

/// The audit trail's last record was written when it was: a clock that is behind it was set back.
fn clock(config: &Config) -> Finding {
    let now = SystemTime::now();
    let trail = config.audit.directory.join("audit.log");
    let written = fs::metadata(&trail).and_then(|meta| meta.modified()).ok();
    let behind = written.and_then(|written| written.duration_since(now).ok()).filter(|behind| *behind > ROUNDING);
    if let Some(behind) = behind {
        return Finding::fail(
            "clock",
            format!("{} s behind the last record in {}", behind.as_secs(), trail.display()),
            "set the clock right (timedatectl, chronyc makestep): records and attestations carry its time",
        );
    }
    // Where systemd-timesyncd keeps the clock; others do not say so in a file.
    if std::path::Path::new("/run/systemd/timesync/synchronized").exists() {
        return Finding::ok("clock", "synchronised by systemd-timesyncd");
    }
    Finding::ok("clock", "not behind the audit trail; whether it is synchronised, timedatectl or chronyc says")
}

fn user() -> Finding {
    if rustix::process::geteuid().is_root() {
        return Finding::warn(
            "user",
            "this command runs as root: what it may read and write says little of the service",
            "run it as the service's user: runuser -u USER -- verification-signer doctor ...; give the unit a User=",
        );
    }
    Finding::ok("user", format!("uid {}", rustix::process::geteuid().as_raw()))
}

/// What systemd forbids this process, when it was started by it.
fn sandbox() -> Finding {
    if std::env::var_os("INVOCATION_ID").is_none() {
        return Finding::ok("sandbox", "not started by systemd: nothing to look at");
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing_from(&status);
    if missing.is_empty() {
        return Finding::ok("sandbox", "NoNewPrivileges, a system call filter, no capabilities");
    }
    Finding::warn(
        "sandbox",
        format!("the unit does not set {}", missing.join(", ")),
        "add them to the unit; `systemd-analyze security UNIT` lists more. The module, its daemon's socket and \
         /etc of the HSM's client must stay readable",
    )
}

/// Settings of the unit that proc(5), "status", shows to be absent.
fn missing_from(status: &str) -> Vec<&'static str> {
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim);
    let mut missing = Vec::new();
    if field("NoNewPrivs") != "1" {
        missing.push("NoNewPrivileges=yes");
    }
    if field("Seccomp") != "2" {
        missing.push("SystemCallFilter=@system-service");
    }
    if field("CapBnd").bytes().any(|digit| digit != b'0') {
        missing.push("CapabilityBoundingSet=");
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_unit_leaves_open_is_read_from_the_process() {
        let held = "Name:\tx\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        assert!(missing_from(held).is_empty());
        let open = "Name:\tx\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t0\nSeccomp:\t0\n";
        assert_eq!(missing_from(open).len(), 3);
    }
}
