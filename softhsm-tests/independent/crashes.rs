//! The appliance killed at each step of a rotation of the standby's key: before and after each write of the ledger,
//! and at random moments.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::json;

use super::rotate_standby_with;
use crate::support::{
    appliance::Appliance,
    client::Client,
    eventually,
    pair::Pair,
    signer::{key, rotation_request},
    softhsm::SoftHsm,
};

/// strace on all threads, killing the process at its call on this file with that number.
struct Killer(Child);

impl Killer {
    fn attach(pid: u32, file: &Path, (call, number): (&str, usize)) -> Self {
        let mut command = Command::new("strace");
        command.args([
            "-f",
            "-qq",
            "-p",
            &pid.to_string(),
            "-P",
            file.to_str().unwrap(),
            "-e",
            &format!("trace={call}"),
        ]);
        command.args(["-e", &format!("inject={call}:signal=KILL:when={number}")]);
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("strace follows every thread", || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            let traced = |task: fs::DirEntry| {
                let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
                status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
            };
            tasks.map(Result::unwrap).all(traced).then_some(())
        });
        Self(child)
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-s", "TERM", &self.0.id().to_string()]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

/// A rotation of the standby's key, killed at this call on the ledger, the one with this number; whether it had
/// answered.
fn killed(pair: &Pair, at: (&str, usize)) -> bool {
    let appliance = pair.serve();
    let killer = Killer::attach(appliance.pid(), &pair.site.path("ledger"), at);
    let client = Client::new(&appliance.api);
    let mut body = rotation_request(&json!({ "overlap_seconds": 0 }));
    body["token"] = "standby-1".into();
    let answer = thread::spawn(move || client.post("/api/v1/keys/rotate", &body)).join().unwrap();
    if answer.is_none() {
        appliance.wait();
    }
    drop(killer);
    answer.is_some_and(|answer| answer.status == 201)
}

fn private_keys(token: &SoftHsm) -> BTreeSet<String> {
    token.pkcs11_tool().private_keys().into_iter().collect()
}

/// Object ids of the keys that the ledger has on the token with this serial.
fn recorded(appliance: &Appliance, serial: &str) -> BTreeSet<String> {
    let keys = appliance.get("/api/v1/keys").ok();
    let there = keys.as_array().unwrap().iter().filter(|key| key["token"]["serial"] == serial);
    there.map(|key| key["token"]["object_id"].as_str().unwrap().to_owned()).collect()
}

/// One active key on each token, both sign, and the next rotation cleans up what is left.
fn goes_on(pair: &Pair) {
    let appliance = pair.serve();
    let states = appliance.states();
    let allowed: [&[&str]; 3] =
        [&["active", "active"], &["active", "active", "pending"], &["active", "retired", "active"]];
    assert!(allowed.iter().any(|one| states == *one), "{states:?}");
    let primary = |appliance: &Appliance| appliance.active_on()[0].clone();
    assert_eq!(primary(&appliance), key(1));
    assert_eq!(appliance.signing_key(), key(1));
    let rotated = rotate_standby_with(&appliance, &json!({ "emergency": true, "reason": "compromised" }));
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    appliance.standby_is_ready();
    assert_eq!(primary(&appliance), key(1));
    assert_eq!(appliance.states().iter().filter(|state| *state == "active").count(), 2);
    let away = crate::recovery::away::Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    assert_eq!(appliance.signing_key(), appliance.active_on()[1]);
    drop(away);
    let (standby, primary) = (&pair.standby.serial, &pair.site.token.serial);
    let expected = [recorded(&appliance, standby), recorded(&appliance, primary)];
    appliance.stop();
    assert_eq!([private_keys(&pair.standby), private_keys(&pair.site.token)], expected);
}

#[test]
fn a_rotation_of_the_standby_killed_at_each_commit_point_leaves_the_old_key_or_the_new_one() {
    // The intent, the key, the intent taken back, the activation: before each is written, and before it is synced.
    for number in 1..=4 {
        for call in ["write", "fdatasync"] {
            let pair = Pair::independent();
            assert!(!killed(&pair, (call, number)), "{call} {number}: it was not killed");
            println!("killed at {call} {number}");
            goes_on(&pair);
        }
    }
    // There is no other.
    assert!(killed(&Pair::independent(), ("write", 5)));
}

/// Between the key's generation and its record.
#[test]
fn a_key_that_was_generated_and_not_recorded_is_destroyed_on_the_standby() {
    let pair = Pair::independent();
    // Written: the intent; the key's record is not.
    assert!(!killed(&pair, ("write", 2)));
    assert_eq!(private_keys(&pair.standby).len(), 2);
    goes_on(&pair);
}
