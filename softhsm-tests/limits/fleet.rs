//! Several appliances are one to whoever asks: limits, cool-downs and blocks are shared.

use serde_json::json;

use super::about;
use crate::{
    fleet::members::Fleet,
    support::{
        appliance::{Answer, Appliance},
        eventually,
        redis::RedisServer,
    },
};

fn fleet(redis: &RedisServer) -> Fleet {
    Fleet::of(2, &format!("[redis]\nurl = \"{}\"\n[limits]\nenabled = true\nexempt = []", redis.url()))
}

fn attest(appliance: &Appliance, subject: &str) -> Answer {
    appliance.post("/api/v1/attestations", &about(subject, &appliance.nonce()))
}

#[test]
fn a_limit_holds_for_all_appliances_together() {
    let redis = RedisServer::start(&[]);
    let fleet = fleet(&redis);
    let statuses: Vec<_> = (0..11).map(|number| attest(&fleet.members[number % 2], "virtengine1a").status).collect();
    assert_eq!(statuses, [[200].repeat(10), vec![429]].concat());
    let request = about("virtengine1a", &fleet.members[0].nonce());
    assert_eq!(fleet.members[1].post("/api/v1/attestations", &request).problem(), "rate-limited");
    // The nonce was not spent, so it is still good for something else.
    let other = about("virtengine1b", request["nonce"].as_str().unwrap());
    assert_eq!(fleet.members[0].post("/api/v1/attestations", &other).status, 200);
}

#[test]
fn a_cool_down_holds_for_all_appliances() {
    let redis = RedisServer::start(&[]);
    let fleet = fleet(&redis);
    for number in 0..5 {
        let unknown = about("virtengine1a", &"ab".repeat(32));
        let answer = fleet.members[number % 2].post("/api/v1/attestations", &unknown);
        assert_eq!(answer.problem(), "nonce-not-found");
    }
    for member in &fleet.members {
        let refused = attest(member, "virtengine1a");
        assert!(refused.text().contains("too many failures"), "{}", refused.text());
    }
}

#[test]
fn a_block_set_on_one_holds_on_the_other_and_outlives_a_cleared_redis() {
    let redis = RedisServer::start(&[]);
    let fleet = fleet(&redis);
    let (one, other) = (&fleet.members[0], &fleet.members[1]);
    let body = json!({ "subject": "virtengine1a", "reason": "test", "initiated_by": "security-team" });
    let answer = one.post("/api/v1/blocks", &body);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(attest(one, "virtengine1a").problem(), "blocked");
    eventually("the block holds on the other", || (attest(other, "virtengine1a").status == 403).then_some(()));

    // What the runbook clears: each appliance has its own copy, and fills the fleet's again.
    redis.command::<()>(&["FLUSHALL"]);
    eventually("the list is back", || {
        (redis.command::<Vec<String>>(&["KEYS", "virtengine:veid:*:blocks"]).len() == 1).then_some(())
    });
    assert_eq!(attest(other, "virtengine1a").problem(), "blocked");

    assert_eq!(other.delete(&format!("/api/v1/blocks/{id}")).status, 200);
    assert_eq!(attest(other, "virtengine1a").status, 200);
    eventually("it is lifted everywhere", || (attest(one, "virtengine1a").status == 200).then_some(()));
    // A lifted block does not come back from a copy that still had it.
    assert_eq!(one.get("/api/v1/blocks").ok(), json!([]));
    assert_eq!(other.get("/api/v1/blocks").ok(), json!([]));
}

#[test]
fn blocks_go_on_holding_while_redis_is_away() {
    let redis = RedisServer::start(&[]);
    let fleet = fleet(&redis);
    let body = json!({ "address": "192.0.2.0/24", "reason": "test", "initiated_by": "security-team" });
    fleet.members[0].post("/api/v1/blocks", &body);
    eventually("the other knows", || (fleet.members[1].get("/api/v1/blocks").ok() != json!([])).then_some(()));
    drop(redis);
    let local = json!({ "subject": "virtengine1a", "reason": "test", "initiated_by": "security-team" });
    assert_eq!(fleet.members[0].post("/api/v1/blocks", &local).status, 201, "set here all the same");
    let request = about("virtengine1a", &"ab".repeat(32));
    assert_eq!(fleet.members[0].post("/api/v1/attestations", &request).problem(), "blocked");
    assert_eq!(fleet.members[1].get("/api/v1/blocks").ok().as_array().unwrap().len(), 1);
}
