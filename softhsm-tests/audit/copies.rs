//! Copies in a Redis stream.

use crate::fleet::races::lock;
use crate::support::{eventually, redis::RedisServer, signer::Signer, tool};

#[test]
fn every_record_gets_into_the_stream_of_the_fleet() {
    let redis = RedisServer::start(&[]);
    let signer = Signer::with_audit("redis_stream_length = 1000", &lock(&redis));
    let sequence = signer.try_attest().header("audit-sequence").to_owned();
    let url = redis.url();
    let key = "virtengine:veid:{veid-signer-test}:audit";
    eventually("the record is in the stream", || {
        let listed = tool::run("redis-cli", &["-u", &url, "XRANGE", key, "-", "+"], &[]);
        listed.contains(&format!("{{\"sequence\":{sequence},")).then_some(())
    });
    let missed = "virtengine_verification_audit_copies_dropped_total{receiver=\"redis\"}";
    assert_eq!(signer.metric(missed), "0");
}
