//! Rotations that are due are made on each token; one that is away is done when it is back.

use crate::{
    recovery::away::Away,
    support::{eventually, pair::Pair, signer::key},
};

#[test]
fn a_token_that_is_away_when_its_rotation_is_due_is_done_when_it_is_back_and_warned_about() {
    let pair = Pair::independent();
    pair.site.edit_config("[key_policy]\n", "[key_policy]\nrotate_at_age = \"1s\"\n");
    let away = Away::take(&pair.standby);
    let appliance = pair.site.serve().unwrap();
    eventually("the primary is rotated", || (appliance.active_on()[0] == key(3)).then_some(()));
    assert_eq!(appliance.active_on()[1], key(2));
    eventually("it is said", || {
        let waits = format!("the rotation of {} is due, and waits for standby-1", key(2));
        appliance.get("/healthz").text().contains(&waits).then_some(())
    });
    eventually("it is on record", || {
        appliance.trail().iter().any(|line| line.starts_with("health_check rotation_waits")).then_some(())
    });
    drop(away);
    eventually("the standby is rotated", || (appliance.active_on()[1] == key(4)).then_some(()));
    assert_eq!(appliance.states(), ["rotating", "rotating", "active", "active"]);
    assert!(!appliance.get("/healthz").text().contains("waits for"));
    appliance.standby_is_ready();
    let _away = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    assert_eq!(appliance.signing_key(), key(4));
}
