//! An appliance under load for a while holds no more than at first. `make soak` does it for an hour.

use std::time::Duration;

use crate::support::{
    redis::RedisServer,
    site::Site,
    soak::{Soak, soak},
};

#[test]
fn under_load_nothing_grows() {
    let (site, redis) = (Site::with_key(), RedisServer::start(&[]));
    // In the process it would grow by the nonces until their window ends.
    site.edit_config("[audit]", &format!("[redis]\nurl = \"{}\"\n[audit]", redis.url()));
    let appliance = site.serve().unwrap();
    let order = Soak { rate: 100, clients: 8, time: Duration::from_secs(20), look: Duration::from_millis(500) };
    let soaked = soak(&appliance, order, |_| {});
    assert_eq!(soaked.failed, 0, "{:?}", soaked.said);
    let signed: usize = soaked.looks.iter().map(|look| look.attestations).sum();
    assert!(signed > 200, "{signed} attestations were made");
    let growth = soaked.growth(Duration::from_secs(6), 4096);
    assert!(growth.is_empty(), "{growth:?} {soaked:#?}");
    appliance.stop();
}
