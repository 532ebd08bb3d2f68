//! Legible: on a phone, in both colour schemes.

use serde_json::json;

use super::open;
use crate::support::{appliance::Appliance, browser::Browser};

/// An appliance with something to show of every kind.
fn busy() -> Appliance {
    let appliance = Appliance::dev();
    let rotate = json!({ "reason": "quarterly", "initiated_by": "ops-team", "notes": "change 4711" });
    assert_eq!(appliance.post("/api/v1/keys/rotate", &rotate).status, 201);
    assert_eq!(appliance.post("/api/v1/keys", &json!({ "initiated_by": "ops-team" })).status, 201);
    let revoke = json!({ "reason": "compromised", "initiated_by": "security-team" });
    assert_eq!(appliance.post("/api/v1/keys/veid-signer-dev:1/revoke", &revoke).status, 200);
    let block = json!({ "address": "2001:db8:1234:5678::/64", "reason": "credential stuffing", "initiated_by": "security-team" });
    assert_eq!(appliance.post("/api/v1/blocks", &block).status, 201);
    let off = json!({ "on": true, "reason": "new firmware", "initiated_by": "ops-team" }).to_string();
    assert_eq!(appliance.put_bytes("/api/v1/maintenance", "application/json", off.as_bytes()).status, 200);
    appliance
}

fn assert_fits(browser: &Browser, what: &str) {
    let widths = browser.js(
        "return [...document.querySelectorAll('html, body, main, dialog, section, form, table, li')] \
         .filter((one) => one.checkVisibility() && (one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0 || one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)) \
         .map((one) => `${one.tagName} ${one.id} ${one.className} ${one.scrollWidth} > ${one.clientWidth}`)",
    );
    assert_eq!(widths, json!([]), "{what}");
}

#[test]
fn nothing_is_wider_than_a_phone() {
    let appliance = busy();
    let browser = open(&appliance);
    browser.size(390, 844);
    browser.wait_until("it is as wide as a phone", "return document.documentElement.clientWidth === 390");
    browser.wait_for("[data-block]");
    assert_fits(&browser, "the board");
    browser.picture("phone");
    for button in ["#rotate", "#emergency", "[data-focus^=revoke]", "[data-focus^=details]", "#block", "#maintenance"] {
        browser.click(button);
        browser.wait_for("dialog");
        assert_fits(&browser, button);
        browser.js("document.querySelector('dialog').close()");
    }
    // WCAG 2.2 §2.5.8.
    let small = browser.js(
        "return [...document.querySelectorAll('button')].filter((one) => one.checkVisibility()) \
         .filter((one) => one.getBoundingClientRect().height < 24 || one.getBoundingClientRect().width < 24).map((one) => one.textContent)",
    );
    assert_eq!(small, json!([]));
    browser.assert_clean();
}

/// Every text whose contrast with what is behind it is below WCAG 2.2 §1.4.3, except on what is disabled.
const PALE: &str = r"
    const parse = (colour) => { const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number); return { r, g, b, a }; };
    const over = (top, below) => ({ r: top.r * top.a + below.r * (1 - top.a), g: top.g * top.a + below.g * (1 - top.a), b: top.b * top.a + below.b * (1 - top.a), a: 1 });
    const ground = (element) => {
        const layers = [];
        for (let one = element; one; one = one.parentElement) layers.push(parse(getComputedStyle(one).backgroundColor));
        return layers.reverse().reduce((below, top) => over(top, below), { r: 255, g: 255, b: 255, a: 1 });
    };
    const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const light = ({ r, g, b }) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const root = document.querySelector('dialog') ?? document.body;
    const found = [];
    let looked = 0;
    for (const element of root.querySelectorAll('*')) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || !element.checkVisibility() || element.disabled || ['SCRIPT', 'TITLE', 'OPTION', 'title'].includes(element.tagName)) continue;
        const style = getComputedStyle(element);
        const behind = ground(element);
        const front = over(parse(element instanceof SVGElement ? style.fill : style.color), behind);
        const [high, low] = [light(front), light(behind)].sort((a, b) => b - a);
        const ratio = (high + 0.05) / (low + 0.05);
        looked += 1;
        if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${element.tagName}.${element.className?.baseVal ?? element.className}: ${element.textContent.slice(0, 40)}`);
    }
    return looked > 10 ? found : ['hardly any text was looked at'];
";

#[test]
fn every_text_stands_out_in_light_and_dark() {
    let appliance = busy();
    let browser = open(&appliance);
    browser.wait_for("[data-block]");
    for scheme in ["light", "dark"] {
        browser.colours(scheme);
        let dark = if scheme == "dark" { "true" } else { "false" };
        browser.wait_until(scheme, &format!("return matchMedia('(prefers-color-scheme: dark)').matches === {dark}"));
        // Colours of buttons glide.
        browser.wait_until("nothing moves", "return document.getAnimations().length === 0");
        assert_eq!(browser.js(PALE), json!([]), "{scheme}");
        browser.picture(scheme);
        browser.click("[data-focus='revoke veid-signer-dev:2']");
        browser.fill("dialog [name=typed]", "veid-signer-dev:2");
        browser.wait_until("nothing moves", "return document.getAnimations().length === 0");
        assert_eq!(browser.js(PALE), json!([]), "{scheme}, a question");
        browser.js("document.querySelector('dialog').close()");
    }
    browser.assert_clean();
}

#[test]
fn everything_that_can_be_used_has_a_name() {
    let appliance = busy();
    let browser = open(&appliance);
    browser.click("#rotate");
    browser.wait_for("dialog");
    let nameless = browser.js(
        "return [...document.querySelectorAll('button, input, select, textarea, a, svg[role=img], section, dialog')] \
         .filter((one) => one.checkVisibility()) \
         .filter((one) => !(one.getAttribute('aria-label') || one.labels?.length || one.textContent.trim() || one.getAttribute('aria-labelledby'))) \
         .map((one) => one.outerHTML.slice(0, 100))",
    );
    assert_eq!(nameless, json!([]));
    let twice = browser.js(
        "const ids = [...document.querySelectorAll('[id]')].map((one) => one.id); return ids.filter((id, at) => ids.indexOf(id) !== at)",
    );
    assert_eq!(twice, json!([]));
}
