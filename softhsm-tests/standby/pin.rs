//! A PIN that a standby refuses is that standby's affair.

use std::time::{Duration, Instant};

use crate::support::{eventually, pair::Pair, site::Site};

#[test]
fn a_wrong_pin_on_the_standby_is_tried_once_and_the_primary_goes_on() {
    let pair = Pair::new();
    pair.standby.write_pin("wrong-pin-000");
    let appliance = pair.site.serve().unwrap();
    eventually("it is refused", || {
        appliance.token_health("standby-1")["detail"].as_str().unwrap().contains("PIN").then_some(())
    });
    let logins = pair.faults[1].calls("C_Login");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        appliance.attest();
    }
    assert_eq!((logins, pair.faults[1].calls("C_Login")), (1, 1));
    assert_eq!(appliance.switches(), Vec::<String>::new());
    assert!(!appliance.log().contains("wrong-pin"));
    appliance.stop();
    // A restart does not try it again, and the primary, which has the same serial, is not concerned.
    let appliance = pair.site.serve().unwrap();
    eventually("it is refused", || {
        appliance.token_health("standby-1")["detail"].as_str().unwrap().contains("refused before").then_some(())
    });
    appliance.attest();
    assert_eq!(pair.faults[1].calls("C_Login"), 1);
    appliance.stop();
    // The right one is taken.
    pair.standby.write_pin(crate::support::softhsm::PIN);
    pair.serve().stop();
}

#[test]
fn one_pin_file_for_both_does_not_latch_the_primary() {
    let pair = Pair::new();
    // The standby's PIN is another by now; the file is the primary's.
    pair.standby.change_pin("another-pin-111");
    let standby = pair.standby.path().join("pin");
    let primary = pair.site.token.path().join("pin");
    pair.site.edit_config(standby.to_str().unwrap(), primary.to_str().unwrap());
    let refused = |site: &Site| {
        let appliance = site.serve().unwrap();
        eventually("it is refused", || {
            appliance.token_health("standby-1")["detail"].as_str().unwrap().contains("PIN").then_some(())
        });
        appliance.attest();
        appliance.stop();
    };
    refused(&pair.site);
    refused(&pair.site);
    assert_eq!(pair.faults[1].calls("C_Login"), 1);
}
