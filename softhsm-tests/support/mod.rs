//! What tests stand on: an appliance under test, a token, other people's tools.

pub mod appliance;
pub mod browser;
pub mod client;
pub mod curl;
pub mod dice;
pub mod faults;
pub mod guarded;
pub mod http;
#[allow(dead_code, reason = "the measurements do more with it")]
pub mod load;
pub mod modules;
pub mod own_process;
pub mod own_token;
pub mod pair;
pub mod pkcs11_tool;
pub mod pki;
pub mod prometheus;
/// The same as the nonce store's own tests start.
#[path = "../../src/redis/test_server.rs"]
#[allow(dead_code, reason = "those tests do more to it")]
pub mod redis;
pub mod routes;
pub mod runbook;
pub mod schema;
pub mod sentinels;
pub mod shifted;
pub mod signer;
pub mod site;
#[allow(dead_code, reason = "the measurements do more with it")]
pub mod soak;
pub mod softhsm;
pub mod spy;
pub mod tool;
pub mod tracer;

use std::time::{Duration, Instant};

/// Waits for a condition by asking again, with a deadline that only a broken test reaches.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    // Longer than a lock of the fleet lives whose holder ended without giving it back (90 s).
    let deadline = Instant::now() + Duration::from_secs(150);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
