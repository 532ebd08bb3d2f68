//! What is done in the console is done.

use super::{answer, open, states};
use crate::support::{
    appliance::{Appliance, attestation_request},
    browser::{Browser, ENTER},
};

#[test]
fn a_rotation_is_seen_to_happen_a_key_is_revoked_and_both_are_found_on_record() {
    let appliance = Appliance::dev();
    let browser = open(&appliance);
    browser.click("#rotate");
    answer(&browser, &[("reason", "quarterly"), ("initiated_by", "ops-team"), ("notes", "change 4711")]);
    browser.wait_for("[data-key='veid-signer-dev:2'][data-state=active]");
    browser.wait_for("[data-key='veid-signer-dev:1'][data-state=rotating]");
    // The overlap is a band over both lines, as wide on the one as on the other.
    let widths = browser.js(
        "return [...document.querySelectorAll('.key rect[data-overlap=rotation-2]')].map((band) => band.getBoundingClientRect().width)",
    );
    let widths: Vec<_> = widths.as_array().unwrap().iter().map(|width| width.as_f64().unwrap()).collect();
    assert!(widths.len() == 2 && widths[0] > 10.0 && (widths[0] - widths[1]).abs() < 0.1, "{widths:?}");
    browser.wait_for("[data-rotation=rotation-2][data-status=in_progress]");
    browser.wait_for_text("#rotation-list", "change 4711");
    assert_eq!(states(&appliance), ["active", "rotating"]);
    browser.picture("rotation");

    revoke_with_the_wrong_confirmation(&appliance, &browser);
    browser.fill("dialog [name=typed]", "veid-signer-dev:1");
    browser.picture("revocation");
    answer(&browser, &[("initiated_by", "security-team")]);
    browser.wait_for("[data-key='veid-signer-dev:1'][data-state=revoked]");
    assert_eq!(states(&appliance), ["active", "revoked"]);

    browser.click("#audit-filter [name=event_type]");
    browser.click("#audit-filter option[value=key_revoked]");
    browser.fill("#audit-filter [name=key_id]", "veid-signer-dev:1");
    browser.press(ENTER);
    browser.wait_until(
        "only revocations are listed",
        "const rows = [...document.querySelectorAll('#audit-list tr[data-event]')]; \
         return rows.length > 0 && rows.every((row) => row.dataset.event === 'key_revoked')",
    );
    browser.click("#audit-list tr[data-event] summary");
    let record = browser.wait_for_text("#audit-list pre", "security-team");
    assert!(record.contains("veid-signer-dev:1") && record.contains("time_to_safe_seconds"), "{record}");
    browser.picture("found");
    browser.assert_clean();
}

/// Neither a key press nor a script that submits the form sends anything.
fn revoke_with_the_wrong_confirmation(appliance: &Appliance, browser: &Browser) {
    browser.js("window.sent = []; const real = fetch; window.fetch = (path, how) => { sent.push(`${how.method} ${path}`); return real(path, how); };");
    browser.click("[data-focus='revoke veid-signer-dev:1']");
    for wrong in ["", "veid-signer-dev:2", "VEID-SIGNER-DEV:1", "veid-signer-dev:1x"] {
        browser.fill("dialog [name=typed]", wrong);
        assert_eq!(browser.js("return document.querySelector('dialog [type=submit]').disabled"), true, "{wrong}");
        browser.press(ENTER);
        browser.js("document.querySelector('dialog form').requestSubmit()");
    }
    let changes = browser.js("return sent.filter((request) => !request.startsWith('GET '))");
    assert_eq!(changes, serde_json::json!([]));
    assert_eq!(states(appliance), ["active", "rotating"]);
    assert!(appliance.audit_events("key_revoked").is_empty());
}

#[test]
fn everything_that_is_offered_can_be_done() {
    let appliance = Appliance::dev();
    let browser = open(&appliance);
    let key = |number: u32| format!("veid-signer-dev:{number}");

    browser.click("#generate");
    answer(&browser, &[]);
    browser.wait_for("[data-state=pending]");

    browser.click("#rotate");
    answer(&browser, &[]);
    browser.wait_for("[data-rotation=rotation-2]");
    browser.click("[data-focus='cancel rotation-2']");
    answer(&browser, &[]);
    browser.wait_for("[data-rotation=rotation-2][data-status=cancelled]");

    browser.click("#rotate");
    answer(&browser, &[]);
    browser.wait_for("[data-status=in_progress]");
    let rotation = appliance.get("/api/v1/rotations").ok()[0]["rotation_id"].as_str().unwrap().to_owned();
    browser.click(&format!("[data-focus='complete {rotation}']"));
    browser.click("dialog [name=force]");
    answer(&browser, &[]);
    browser.wait_for(&format!("[data-rotation={rotation}][data-status=completed]"));
    browser.wait_for("[data-state=retired]");

    browser.click("#emergency");
    let active = appliance.get("/api/v1/keys/active").ok()["key_id"].as_str().unwrap().to_owned();
    answer(&browser, &[("typed", &active)]);
    browser.wait_for(&format!("[data-key='{active}'][data-state=revoked]"));
    assert_ne!(appliance.get("/api/v1/keys/active").ok()["key_id"], active.as_str());

    browser.click(&format!("[data-focus='destroy {}']", key(1)));
    browser.click("dialog [name=force]");
    answer(&browser, &[("typed", &key(1))]);
    browser.wait_for_text(&format!("[data-key='{}']", key(1)), "destroyed");

    browser.click("#maintenance");
    answer(&browser, &[("reason", "new firmware")]);
    browser.wait_for_text("#warnings", "new firmware");
    assert_eq!(appliance.get("/api/v1/maintenance").ok()["on"], true);
    browser.wait_for_text("#service-list", "Out of service");
    browser.click("#maintenance");
    answer(&browser, &[]);
    browser.wait_for_text("#service-list", "in service");

    browser.click("#block");
    answer(&browser, &[("target", "192.0.2.0/24"), ("reason", "credential stuffing")]);
    browser.wait_for("[data-block='192.0.2.0/24']");
    browser.click("[data-block='192.0.2.0/24'] button");
    answer(&browser, &[]);
    browser.wait_for_text("#block-list", "Nobody is blocked");

    browser.click("#sign-test");
    browser.wait_for_text("#sign-test-outcome", "has signed and verified");
    browser.click("#cleanup");
    answer(&browser, &[]);
    browser.wait_for_text("#said", "were forgotten");
    browser.click("#audit-rotate");
    answer(&browser, &[]);
    browser.wait_for_text("#said", "Closed as audit.log.");
    browser.click(&format!("[data-focus='details {}']", key(1)));
    browser.wait_for_text("dialog", "BEGIN PUBLIC KEY");
    browser.click("dialog button");
    browser.assert_clean();
}

#[test]
fn what_was_signed_is_seen_as_a_rate_and_a_latency() {
    let appliance = Appliance::dev();
    let browser = open(&appliance);
    browser.wait_for_text("#tiles", "nothing was signed yet");
    // Twice, so that there is a difference, and a line.
    for signed in ["1 signed, 0 refused", "2 signed, 0 refused"] {
        let request = attestation_request(&appliance.nonce());
        assert_eq!(appliance.post("/api/v1/attestations", &request).status, 200);
        browser.wait_for_text("#tiles", signed);
    }
    let tiles = browser.wait_for_text("#tiles", "median");
    assert!(tiles.contains("ms 99th percentile") && tiles.contains("2 used"), "{tiles}");
    browser.wait_for("#tiles .spark-line");
    let activity = appliance.get("/api/v1/activity").ok();
    assert_eq!(activity["attestations"]["latency"]["count"], 2);
    assert_eq!(activity["nonces"]["spent"], 2);
    browser.assert_clean();
}

#[test]
fn the_checks_before_a_rotation_are_shown_and_a_refusal_says_what_to_do() {
    let appliance = Appliance::dev();
    let browser = open(&appliance);
    browser.click("#rotate");
    answer(&browser, &[]);
    browser.wait_for("[data-state=rotating]");
    browser.click("#rotate");
    browser.click("dialog div > button[type=button]");
    let checks = browser.wait_for_text("dialog .checks", "no rotation in progress");
    assert!(checks.contains("failed") && checks.contains("token reachable"), "{checks}");
    browser.click("dialog button[type=submit]");
    let refusal = browser.wait_for_text("dialog .refusal", "A rotation is in progress");
    assert!(refusal.contains("Complete it") && refusal.contains("Request "), "{refusal}");
    browser.picture("refusal");
    assert_eq!(states(&appliance), ["active", "rotating"]);
    // A refusal is no error of the page, but the browser's log names the 409.
    let other: Vec<_> = browser.complaints().into_iter().filter(|said| !said.contains("409")).collect();
    assert!(other.is_empty(), "{other:?}");
}
