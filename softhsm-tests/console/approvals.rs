//! Dual control, in the console.

use super::{answer, sign_in};
use crate::support::{browser::Browser, guarded::Guarded};

#[test]
fn a_rotation_waits_is_approved_by_somebody_else_and_carried_out() {
    let guarded = Guarded::with("none", "", "[approvals]\nrotate = { count = 1, roles = [\"security\"] }\n");
    let browser = Browser::open(&guarded.appliance().api);
    let (operator, security) = (guarded.key("operator", &[]), guarded.key("security", &[]));
    sign_in(&browser, &operator);
    browser.click("#rotate");
    browser.fill("dialog [name=notes]", "change 4711");
    browser.click("dialog button[type=submit]");
    browser.wait_for_text("dialog .notice", "must approve it");
    browser.picture("waiting");
    browser.click("dialog .buttons button[type=button]");
    browser.wait_for("[data-approval][data-status=pending]");
    // Nobody approves their own request.
    assert!(!browser.text("#approval-list").contains("Approve…"));
    browser.click("#sign-out");

    sign_in(&browser, &security);
    browser.wait_for("[data-approval][data-status=pending]");
    browser.click("[data-focus^='Approve']");
    let content = browser.wait_for_text("dialog pre", "change 4711");
    assert!(content.contains("scheduled rotation"), "{content}");
    answer(&browser, &[]);
    browser.wait_for("[data-approval][data-status=approved]");
    browser.click("#sign-out");

    sign_in(&browser, &operator);
    browser.click("[data-focus^='Carry out']");
    answer(&browser, &[]);
    browser.wait_for("[data-approval][data-status=used]");
    browser.wait_for("[data-state=rotating]");
    let rotations = guarded.certified("auditor").get("/api/v1/rotations").ok();
    assert_eq!(rotations[0]["notes"], "change 4711");
    browser.assert_clean();
}
