//! When no answer comes.

use super::{answer, open, states};
use crate::support::appliance::Appliance;

#[test]
fn a_lost_connection_is_shown_and_the_board_comes_back_by_itself() {
    let home = tempfile::tempdir().unwrap();
    let appliance = Appliance::dev_in(home.path());
    let browser = open(&appliance);
    // As when the machine is gone: nothing answers, and in time it does again.
    browser.js("window.real = fetch; window.fetch = () => Promise.reject(new TypeError('gone'))");
    browser.wait_for_text("#link", "No answer");
    assert!(browser.seen(".key[data-state=active]") > 0, "what was known is still shown");
    assert!(browser.text("#link").contains("old"));
    browser.js("window.fetch = window.real; dispatchEvent(new Event('online'))");
    browser.wait_until("it is heard again", "return document.querySelector('#link').textContent === ''");
    appliance.stop();
    browser.wait_for_text("#link", "No answer");
}

#[test]
fn a_change_whose_answer_was_lost_is_sent_again_and_done_once() {
    let appliance = Appliance::dev();
    let browser = open(&appliance);
    browser.click("#rotate");
    browser.wait_for("dialog");
    // It arrives, and is done; its answer does not arrive.
    browser.js("const real = fetch; window.keys = []; \
         window.fetch = async (path, how) => { \
            const answer = await real(path, how); \
            if (how.method !== 'POST') return answer; \
            keys.push(how.headers['Idempotency-Key']); \
            if (keys.length === 1) throw new TypeError('lost'); \
            return answer; \
         }");
    browser.click("dialog button[type=submit]");
    let said = browser.wait_for_text("dialog .refusal", "No answer came");
    assert!(said.contains("not known"), "{said}");
    assert_eq!(states(&appliance), ["active", "rotating"], "it was done");
    answer(&browser, &[]);
    browser.wait_for("[data-state=rotating]");
    assert_eq!(browser.js("return keys.length === 2 && keys[0] === keys[1] && keys[0].length"), 32);
    assert_eq!(states(&appliance), ["active", "rotating"], "once");
    assert_eq!(appliance.get("/api/v1/rotations").ok().as_array().unwrap().len(), 1);
}

#[test]
fn a_page_that_nobody_looks_at_asks_rarely() {
    let appliance = Appliance::dev();
    let browser = open(&appliance);
    let waits = browser.js_later(
        "const { Poll } = await import('/console/poll.js'); \
         const waits = []; const real = setTimeout; \
         const round = async (hidden, outcome) => { \
            Object.defineProperty(document, 'hidden', { value: hidden, configurable: true }); \
            window.setTimeout = (work, wait) => { waits.push(wait); return 0; }; \
            const poll = new Poll(async () => outcome); \
            await poll.start(); await poll.soon(); poll.stop(); \
            window.setTimeout = real; delete document.hidden; \
         }; \
         await round(false, {}); await round(true, {}); await round(false, { failed: true }); await round(false, { wait: 300 }); \
         return waits",
    );
    let waits: Vec<_> =
        waits.as_array().unwrap_or_else(|| panic!("{waits}")).iter().map(|wait| wait.as_u64().unwrap()).collect();
    assert_eq!(waits, [4_000, 4_000, 60_000, 60_000, 8_000, 16_000, 300_000, 300_000]);
}
