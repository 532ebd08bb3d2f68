//! What others have written stays text.

use serde_json::json;

use super::open;
use crate::support::appliance::Appliance;

const HOSTILE: &str =
    "<img src=x onerror=\"window.owned=1\"><script>window.owned=2</script><svg onload=window.owned=3>";

#[test]
fn markup_in_what_others_have_written_is_shown_as_it_stands() {
    let appliance = Appliance::dev();
    let rotate = json!({ "reason": HOSTILE, "initiated_by": HOSTILE, "notes": HOSTILE });
    assert_eq!(appliance.post("/api/v1/keys/rotate", &rotate).status, 201);
    let block = json!({ "subject": HOSTILE, "reason": HOSTILE, "initiated_by": HOSTILE });
    assert_eq!(appliance.post("/api/v1/blocks", &block).status, 201);
    let off = json!({ "on": true, "reason": HOSTILE, "initiated_by": HOSTILE }).to_string();
    assert_eq!(appliance.put_bytes("/api/v1/maintenance", "application/json", off.as_bytes()).status, 200);
    let revoke = json!({ "reason": "compromised", "initiated_by": HOSTILE });
    assert_eq!(appliance.post("/api/v1/keys/veid-signer-dev:1/revoke", &revoke).status, 200);

    let browser = open(&appliance);
    for place in ["#rotation-list", "#block-list", "#service-list", "#warnings"] {
        browser.wait_for_text(place, HOSTILE);
    }
    browser.js("for (const one of document.querySelectorAll('details')) one.open = true");
    browser.wait_for_text("#audit-list pre", "<script>window.owned=2</script>");
    browser.click("[data-focus='details veid-signer-dev:1']");
    browser.wait_for_text("dialog dd", HOSTILE);
    let made = browser.js(
        "return [typeof window.owned, document.querySelectorAll('main img, dialog img, body script, main [onload], main [onerror]').length]",
    );
    assert_eq!(made, json!(["undefined", 0]));
    browser.click("dialog button");
    // What is asked for goes into an address; what is refused comes back in a problem.
    browser.fill("#audit-filter [name=key_id]", HOSTILE);
    browser.press(crate::support::browser::ENTER);
    browser.wait_for_text("#audit-list", "No record fits");
    assert_eq!(browser.js("return typeof window.owned"), "undefined");
    browser.assert_clean();
}
