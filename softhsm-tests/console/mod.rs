//! The operator console, in a real browser.

mod approvals;
mod connection;
mod files;
mod keyboard;
mod looks;
mod operations;
mod other_sites;
mod roles;
mod text;

use crate::support::{appliance::Appliance, browser::Browser};

/// The console of an appliance where nobody has to sign in, with its first key.
fn open(appliance: &Appliance) -> Browser {
    let browser = Browser::open(&appliance.api);
    browser.wait_for(".key[data-state=active]");
    browser.wait_for("#audit-list tr[data-event]");
    browser
}

/// Signs in with a bearer key.
fn sign_in(browser: &Browser, key: &str) {
    browser.wait_for("#sign-in");
    browser.fill("#bearer", key);
    browser.click("#sign-in-form button");
    browser.wait_for("#board");
}

/// Answers the question that is open, and waits until it has gone.
fn answer(browser: &Browser, fields: &[(&str, &str)]) {
    browser.wait_for("dialog");
    for (name, value) in fields {
        browser.fill(&format!("dialog [name={name}]"), value);
    }
    browser.click("dialog button[type=submit]");
    browser.wait_until("the question is answered", "return !document.querySelector('dialog')");
}

/// The states of the keys, newest first.
fn states(appliance: &Appliance) -> Vec<String> {
    let keys = appliance.get("/api/v1/keys").ok();
    keys.as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap().to_owned()).collect()
}
