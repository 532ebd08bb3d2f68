//! The process that holds the module ends in the middle of C_Login: a fault of the module, which says nothing
//! about the PIN; but if that is wrong, the token has counted it.

use std::{fs, thread, time::Duration};

use crate::support::{appliance::Appliance, eventually, faults::Faults, site::Site, softhsm::PIN};

const WRONG: &str = "wrong-pin-000";

fn latch(site: &Site) -> String {
    fs::read_to_string(site.path("state/pin-refused.json")).unwrap_or_default()
}

fn signs(appliance: &Appliance) -> Option<()> {
    (appliance.try_attest().status == 200).then_some(())
}

/// Before the token has heard of the login, and after it has taken the PIN.
#[test]
fn a_crash_in_a_login_counts_as_no_wrong_pin() {
    for end in ["crash=SEGV", "crash-after=SEGV", "crash-after"] {
        let (site, faults) = Site::with_key().faulty();
        let appliance = site.serve().unwrap();
        let (logins, old) = (faults.calls("C_Login"), appliance.token_process());
        faults.set(&format!("C_Login {end}"));
        appliance.signal_token_process("KILL");
        eventually(end, || (faults.calls("C_Login") > logins + 1).then_some(()));
        faults.clear();
        appliance.another_token_process(old);
        eventually(end, || signs(&appliance));
        assert!(!latch(&site).contains("hash"), "{end}: {}", latch(&site));
        appliance.stop();
        site.serve().unwrap().attest();
    }
}

/// SoftHSM2 says that a wrong PIN was tried (CKF_USER_PIN_COUNT_LOW), as tokens do that lock.
#[test]
fn a_wrong_pin_whose_login_nobody_answered_is_not_sent_again_to_a_token_that_counts() {
    let (site, faults) = Site::with_key().faulty();
    let logins = faults.calls("C_Login");
    site.token.write_pin(WRONG);
    faults.set("C_Login crash-after=SEGV");
    for start in 0..4 {
        let refused = site.refuse("serve");
        if start > 0 {
            refused.with(78, "the module ended before it answered");
        }
        assert_eq!(faults.calls("C_Login"), logins + 1, "start {start}: {refused:#?}");
    }
    faults.clear();
    site.refuse("serve").with(78, "remove pin-refused.json from the state directory");
    assert!(!latch(&site).contains(WRONG));
    // Another PIN is another matter.
    site.token.write_pin(PIN);
    site.serve().unwrap().attest();
    assert!(!latch(&site).contains("hash"), "{}", latch(&site));
}

/// The module ends before the token hears of it, so nothing is counted: for all that anybody knows it was.
#[test]
fn a_pin_that_never_worked_is_sent_twice_at_most_when_nobody_answers() {
    let (site, faults) = Site::with_key().faulty();
    let logins = faults.calls("C_Login");
    faults.set("C_Login crash=SEGV");
    for start in 1..=4 {
        let refused = site.refuse("serve");
        if start > 2 {
            refused.with(78, "the module ended before it answered");
        }
        assert_eq!(faults.calls("C_Login"), logins + start.min(2), "start {start}: {refused:#?}");
    }
    faults.clear();
    site.refuse("serve").with(78, "remove pin-refused.json from the state directory");
    fs::remove_file(site.path("state/pin-refused.json")).unwrap();
    site.serve().unwrap().attest();
}

#[test]
fn a_pin_that_worked_is_tried_on_however_often_the_module_ends_in_the_login() {
    let (site, faults) = Site::with_key().faulty();
    let appliance = site.serve().unwrap();
    let logins = faults.calls("C_Login");
    faults.set("C_Login crash=SEGV");
    appliance.signal_token_process("KILL");
    eventually("it was tried", || (faults.calls("C_Login") > logins + 4).then_some(()));
    thread::sleep(Duration::from_secs(1));
    let storm = faults.calls("C_Login") - logins;
    assert!(storm < 12, "{storm} logins");
    faults.clear();
    eventually("signing resumes", || signs(&appliance));
    assert!(!latch(&site).contains("hash"), "{}", latch(&site));
}

/// The PIN was changed on the token while the appliance ran: it worked once, and does not any more.
#[test]
fn a_pin_that_worked_and_became_wrong_is_not_sent_again_once_the_token_has_counted_it() {
    let (site, faults): (Site, Faults) = Site::with_key().faulty();
    let appliance = site.serve().unwrap();
    site.token.change_pin("another-pin-111");
    let logins = faults.calls("C_Login");
    faults.set("C_Login crash-after=SEGV");
    appliance.signal_token_process("KILL");
    eventually("it is given up", || appliance.log().contains("is not tried again").then_some(()));
    assert_eq!(faults.calls("C_Login"), logins + 1);
    faults.clear();
    assert_eq!(appliance.try_attest().status, 503);
    assert_eq!(faults.calls("C_Login"), logins + 1);
}
