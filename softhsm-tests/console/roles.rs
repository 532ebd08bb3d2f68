//! What a role may not do is not offered, and refused when it is asked for all the same.

use super::sign_in;
use crate::support::{browser::Browser, guarded::Guarded};

/// What of the page changes something.
const CHANGES: [&str; 9] = [
    "#generate",
    "#rotate",
    "#emergency",
    "[data-focus^=revoke]",
    "#maintenance",
    "#block",
    "#audit-rotate",
    "#cleanup",
    "#sign-test",
];

fn offered(browser: &Browser) -> Vec<&'static str> {
    CHANGES.into_iter().filter(|css| browser.seen(css) > 0).collect()
}

/// The status of a change that the page's own code sends as whoever is signed in.
fn forced(browser: &Browser, method: &str, path: &str, body: &str) -> i64 {
    let status = browser.js_later(&format!(
        "const {{ call }} = await import('/console/api.js'); \
         try {{ return (await call('{method}', '{path}', {{ body: {body} }})).status; }} catch (error) {{ return error.status; }}"
    ));
    status.as_i64().unwrap_or_else(|| panic!("{status}"))
}

#[test]
fn each_role_is_offered_what_it_may_do_and_no_more() {
    let guarded = Guarded::new();
    let browser = Browser::open(&guarded.appliance().api);
    let rotate = r#"{ reason: "x", initiated_by: "x" }"#;
    let revoke = r#"{ reason: "compromised", initiated_by: "x" }"#;
    let emergency = r#"{ initiated_by: "x" }"#;
    for (client, expected) in [
        ("producer", &[][..]),
        ("auditor", &[]),
        ("operator", &["#generate", "#rotate", "#maintenance", "#audit-rotate", "#cleanup", "#sign-test"]),
        ("security", &["#rotate", "#emergency", "[data-focus^=revoke]", "#block", "#sign-test"]),
    ] {
        sign_in(&browser, &guarded.key(client, &[]));
        browser.wait_for(".key[data-state=active]");
        let panels: &[&str] = match client {
            "producer" => &["keys"],
            _ => &["keys", "rotations", "approvals", "blocks", "audit", "service"],
        };
        for panel in panels {
            browser.wait_for(&format!("#{panel}"));
        }
        assert_eq!(browser.seen("main section.panel"), panels.len() as u64, "{client}");
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let mut found = offered(&browser);
        found.sort_unstable();
        assert_eq!(found, expected, "{client}");
        if matches!(client, "producer" | "auditor") {
            for (path, body) in [
                ("/api/v1/keys/rotate", rotate),
                ("/api/v1/keys/veid-signer-test:1/revoke", revoke),
                ("/api/v1/keys/emergency", emergency),
            ] {
                assert_eq!(forced(&browser, "POST", path, body), 403, "{client} {path}");
            }
            assert_eq!(forced(&browser, "POST", "/api/v1/audit/rotate", "undefined"), 403, "{client}");
        }
        browser.click("#sign-out");
    }
    let keys = guarded.certified("auditor").get("/api/v1/keys").ok();
    assert_eq!(keys.as_array().unwrap().len(), 1);
    assert_eq!(keys[0]["state"], "active");
}

#[test]
fn nothing_is_shown_without_a_key_nor_after_signing_out_and_the_key_is_kept_nowhere() {
    let guarded = Guarded::new();
    let browser = Browser::open(&guarded.appliance().api);
    browser.wait_for("#sign-in");
    assert_eq!(browser.seen("#board"), 0);
    // To look at the console is not to be denied something.
    assert!(guarded.appliance().audit_events("access_denied").is_empty());
    browser.fill("#bearer", &format!("vsk_{}_{}", "0".repeat(16), "0".repeat(64)));
    browser.click("#sign-in-form button");
    browser.wait_for_text("#sign-in-trouble", "unknown or revoked");
    assert_eq!(browser.seen("#board"), 0);

    let key = guarded.key("operator", &[]);
    sign_in(&browser, &key);
    browser.wait_for(".key[data-state=active]");
    browser.wait_for_text("#caller", "operator");
    let kept = browser.js(
        "return [document.cookie, JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.documentElement.outerHTML, \
         document.querySelector('#bearer').value, location.href].join(' ')",
    );
    let secret = key.rsplit('_').next().unwrap();
    assert!(!kept.as_str().unwrap().contains(secret), "{kept}");
    assert_eq!(browser.js("return localStorage.length + sessionStorage.length"), 0);

    browser.click("#sign-out");
    browser.wait_for("#sign-in");
    let left = browser.js("return document.documentElement.outerHTML");
    assert!(!left.as_str().unwrap().contains("veid-signer-test"), "{left}");
    // After a reload nobody is signed in, nor after coming back to it.
    sign_in(&browser, &key);
    browser.go("/console");
    browser.wait_for("#sign-in");
    sign_in(&browser, &key);
    browser.wait_for(".key[data-state=active]");
    browser.go("/livez");
    browser.js("history.back()");
    browser.wait_for("#sign-in");
    assert_eq!(browser.seen("#board"), 0);
}

#[test]
fn a_key_that_is_revoked_ends_what_is_shown() {
    let guarded = Guarded::new();
    let browser = Browser::open(&guarded.appliance().api);
    let key = guarded.key("auditor", &[]);
    sign_in(&browser, &key);
    browser.wait_for(".key[data-state=active]");
    browser.click("[data-focus^=details]");
    browser.wait_for_text("dialog", "BEGIN PUBLIC KEY");
    let id = key.split('_').nth(1).unwrap();
    guarded.run_key(&["revoke", id]);
    browser.wait_for_text("#sign-in-trouble", "unknown or revoked");
    assert_eq!(browser.seen("#board, dialog"), 0);
}
