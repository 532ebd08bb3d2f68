//! A whole trail rolled back to an older copy: noticed by the appliance's own memory, by Redis, and by
//! the other appliances; nothing is signed until an operator names the trail that is accepted.

use std::{fs, path::Path};

use super::trail::{copy, verifies};
use crate::{
    fleet::races::lock,
    support::{
        appliance::Appliance,
        eventually,
        redis::RedisServer,
        signer::{Signer, first_key_here},
        softhsm::SoftHsm,
        tool,
    },
};

const OFTEN: &str = "checkpoint_interval = \"1s\"";

/// Rolls the trail back to an older copy of itself; the refusal of the next start.
fn rolled_back(signer: &mut Signer, forget: impl FnOnce(&Path)) -> String {
    let (directory, copied) = (signer.home().join("audit"), signer.home().join("older"));
    signer.attest();
    signer.restart_after(|_| copy(&directory, &copied));
    signer.attest();
    let home = signer.home().to_owned();
    signer.stop_and_wait();
    copy(&copied, &directory);
    forget(&home);
    // By itself the older trail is a perfect one.
    verifies(&directory);
    signer.start_again().expect_err("a trail that was rolled back must be refused")
}

fn accept(signer: &Signer, refusal: &str) {
    let (_, rest) = refusal
        .split_once("audit.accept_checkpoint = \\\"")
        .or(refusal.split_once("audit.accept_checkpoint = \""))
        .unwrap();
    let named = rest.split(['"', '\\']).next().unwrap();
    let text = fs::read_to_string(signer.config()).unwrap();
    let accepted = text.replacen("[audit]\n", &format!("[audit]\naccept_checkpoint = \"{named}\"\n"), 1);
    fs::write(signer.config(), accepted).unwrap();
}

#[test]
fn an_appliance_remembers_its_own_trail() {
    let mut signer = Signer::with_audit(OFTEN, "[fleet]\nsingle = true");
    let refusal = rolled_back(&mut signer, |_| {});
    assert!(refusal.contains("audit-seen.json remembers"), "{refusal}");
    accept(&signer, &refusal);
    signer.start_again().unwrap();
    signer.attest();
    assert!(signer.trail().contains(&"security_alert accept_checkpoint success".to_owned()));
    // The acceptance was for that trail; under a new name it goes on.
    signer.restart();
    signer.attest();
    verifies(&signer.home().join("audit"));
}

#[test]
fn redis_remembers_for_an_appliance_that_has_lost_its_state() {
    let redis = RedisServer::start(&[]);
    let mut signer = Signer::with_audit(OFTEN, &lock(&redis));
    let refusal = rolled_back(&mut signer, |home| fs::remove_file(home.join("state/audit-seen.json")).unwrap());
    assert!(refusal.contains("the fleet's memory in Redis remembers"), "{refusal}");
}

#[test]
fn a_trail_that_was_taken_away_whole_is_missed() {
    let redis = RedisServer::start(&[]);
    let mut signer = Signer::with_audit(OFTEN, &lock(&redis));
    signer.attest();
    signer.stop_and_wait();
    let directory = signer.home().join("audit");
    fs::remove_dir_all(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
    let refusal = signer.start_again().unwrap_err();
    assert!(refusal.contains("remembers") && refusal.contains("but there are only 0"), "{refusal}");
}

#[test]
fn the_other_appliances_remember_when_redis_was_cleared() {
    let redis = RedisServer::start(&[]);
    let (token, home) = (SoftHsm::new(), tempfile::tempdir().unwrap());
    let serve = |name: &str| {
        let config = token.config(&home.path().join(name), &first_key_here(&token, "", &lock(&redis)));
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replacen("[audit]\n", &format!("[audit]\n{OFTEN}\n"), 1)).unwrap();
        Appliance::serve(&token, &config)
    };
    let (first, second) = (serve("first").unwrap(), serve("second").unwrap());
    let directory = home.path().join("first/audit");
    let witnessed = || {
        let memory = fs::read_to_string(home.path().join("second/state/audit-seen.json")).unwrap_or_default();
        let notes: serde_json::Value = serde_json::from_str(&memory).ok()?;
        let (_, note) = notes.as_object()?.iter().find(|(origin, _)| origin.contains("first"))?;
        note.as_str()?.lines().nth(1)?.parse::<u64>().ok()
    };
    eventually("the second follows the first", witnessed);
    first.attest();
    first.stop();
    copy(&directory, &home.path().join("older"));
    let first = serve("first").unwrap();
    first.attest();
    let records = first.audit_log().lines().count() as u64;
    eventually("the second has seen more", || witnessed().filter(|size| *size >= records));
    first.stop();
    copy(&home.path().join("older"), &directory);
    fs::remove_file(home.path().join("first/state/audit-seen.json")).unwrap();
    tool::run("redis-cli", &["-u", &redis.url(), "FLUSHALL"], &[]);
    // At the start nobody may have spoken yet; then it starts, and stops signing as soon as somebody does.
    match serve("first") {
        Err((_, refusal)) => assert!(refusal.contains("remembers"), "{refusal}"),
        Ok(first) => {
            let refused = eventually("signing stops", || {
                let answer = first.try_attest_or_refused();
                (answer.status != 200).then_some(answer)
            });
            assert_eq!(refused.problem(), "audit-rolled-back", "{}", first.log());
            assert!(first.get("/healthz").text().contains("rolled back or forked"));
        }
    }
    second.attest();
}
