//! Without a mouse.

use super::{open, states};
use crate::support::{
    appliance::Appliance,
    browser::{Browser, ENTER, ESCAPE, TAB},
};

/// Goes on with Tab until the focus is there; where it is must be seen.
fn tab_to(browser: &Browser, css: &str) {
    for _ in 0..60 {
        browser.press(TAB);
        let (there, outlined) = (
            format!("return document.activeElement.matches({css:?})"),
            "return getComputedStyle(document.activeElement).outlineStyle",
        );
        if browser.js(&there) == true {
            assert_eq!(browser.js(outlined), "solid", "{css}");
            return;
        }
    }
    panic!("Tab does not lead to {css}");
}

#[test]
fn a_rotation_needs_no_mouse() {
    let appliance = Appliance::dev();
    let browser = open(&appliance);
    tab_to(&browser, "a.skip");
    tab_to(&browser, "#rotate");
    browser.press(ENTER);
    browser.wait_for("dialog");
    assert_eq!(browser.js("return document.activeElement.name"), "reason");
    browser.press(ESCAPE);
    browser.wait_until("Escape closes the question", "return !document.querySelector('dialog')");
    assert_eq!(browser.js("return document.activeElement.id"), "rotate", "the focus goes back");
    assert_eq!(states(&appliance), ["active"]);

    browser.press(ENTER);
    browser.wait_for("dialog");
    tab_to(&browser, "dialog [name=notes]");
    browser.press("by hand");
    tab_to(&browser, "dialog button[type=submit]");
    browser.press(ENTER);
    browser.wait_for("[data-state=rotating]");
    browser.wait_for_text("#rotation-list", "by hand");
    assert_eq!(states(&appliance), ["active", "rotating"]);
    browser.assert_clean();
}

#[test]
fn the_focus_stays_where_it_is_when_something_changes() {
    let appliance = Appliance::dev();
    let browser = open(&appliance);
    tab_to(&browser, "[data-focus='details veid-signer-dev:1']");
    let body = serde_json::json!({ "initiated_by": "test" });
    assert_eq!(appliance.post("/api/v1/keys", &body).status, 201);
    browser.wait_for("[data-state=pending]");
    assert_eq!(browser.js("return document.activeElement.dataset.focus"), "details veid-signer-dev:1");
}
