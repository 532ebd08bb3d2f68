//! A real browser: Chromium without a window, asked over WebDriver (W3C) through chromedriver.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

use super::eventually;

/// Nothing of the machine's own, nothing that asks for a network.
const ARGUMENTS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-features=OptimizationHints,MediaRouter",
    "--window-size=1360,900",
];

pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
pub const ESCAPE: &str = "\u{e00c}";

/// A browser with the console open; ended when dropped.
pub struct Browser {
    driver: Child,
    session: String,
    agent: Agent,
    origin: String,
    _profile: TempDir,
}

impl Browser {
    /// At the console of this appliance.
    pub fn open(api: &str) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is not installed: run softhsm-tests/install-tools.sh tests");
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        let line = lines.find(|line| line.contains("started successfully on port")).unwrap();
        let port: u16 = line.rsplit(' ').next().unwrap().trim_end_matches('.').parse().unwrap();
        let agent: Agent = Agent::config_builder().http_status_as_error(false).build().into();
        let profile = tempfile::tempdir().unwrap();
        let wanted = capabilities(profile.path());
        let base = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self { driver, session: base.clone(), agent, origin: api.to_owned(), _profile: profile };
        let made = browser.ask("", &wanted).unwrap();
        browser.session = format!("{base}/{}", made["sessionId"].as_str().unwrap());
        browser.go("/console");
        browser
    }

    fn ask(&self, path: &str, body: &Value) -> Result<Value, String> {
        let sent = self.agent.post(format!("{}{path}", self.session)).send_json(body);
        let mut answer = sent.unwrap_or_else(|error| panic!("{path}: {error}"));
        let value: Value = answer.body_mut().read_json().unwrap();
        let value = value["value"].clone();
        if answer.status().is_success() { Ok(value) } else { Err(value.to_string()) }
    }

    pub fn go(&self, path: &str) {
        self.ask("/url", &json!({ "url": format!("{}{path}", self.origin) })).unwrap();
    }

    /// What a script in the page returns.
    pub fn js(&self, script: &str) -> Value {
        self.ask("/execute/sync", &json!({ "script": script, "args": [] })).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same of the body of an asynchronous function.
    pub fn js_later(&self, script: &str) -> Value {
        let script =
            format!("const done = arguments[0]; (async () => {{ {script} }})().then(done, (e) => done(`${{e}}`));");
        self.ask("/execute/async", &json!({ "script": script, "args": [] })).unwrap_or_else(|error| panic!("{error}"))
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.ask("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters })).unwrap()
    }

    fn element(&self, css: &str) -> Result<String, String> {
        let found = self.ask("/element", &json!({ "using": "css selector", "value": css }))?;
        Ok(found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned())
    }

    /// Clicks as a person does: what is there, can be seen and is not covered. What is drawn anew meanwhile
    /// is looked for again.
    pub fn click(&self, css: &str) {
        eventually(&format!("{css} can be clicked"), || {
            let element = self.element(css).ok()?;
            self.ask(&format!("/element/{element}/click"), &json!({})).ok()
        });
    }

    /// Types into a field, after what stands there is removed.
    pub fn fill(&self, css: &str, text: &str) {
        eventually(&format!("{css} can be filled"), || {
            let element = self.element(css).ok()?;
            self.ask(&format!("/element/{element}/clear"), &json!({})).ok()?;
            self.ask(&format!("/element/{element}/value"), &json!({ "text": text })).ok()
        });
    }

    /// Presses keys, wherever the focus is.
    pub fn press(&self, keys: &str) {
        let strokes: Vec<_> = keys
            .chars()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })])
            .collect();
        self.ask("/actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] })).unwrap();
    }

    /// How many there are that can be seen.
    pub fn seen(&self, css: &str) -> u64 {
        let script = format!(
            "return [...document.querySelectorAll({})].filter((one) => one.checkVisibility()).length",
            json!(css)
        );
        self.js(&script).as_u64().unwrap()
    }

    pub fn wait_for(&self, css: &str) {
        eventually(&format!("{css} is seen"), || (self.seen(css) > 0).then_some(()));
    }

    /// Waits until a place says this; all that it says.
    pub fn wait_for_text(&self, css: &str, text: &str) -> String {
        eventually(&format!("{css} says {text:?}"), || Some(self.text(css)).filter(|found| found.contains(text)))
    }

    pub fn text(&self, css: &str) -> String {
        let script = format!(
            "return [...document.querySelectorAll({})].filter((one) => one.checkVisibility()).map((one) => one.innerText).join('\\n')",
            json!(css)
        );
        self.js(&script).as_str().unwrap().to_owned()
    }

    /// Waits until a script returns true.
    pub fn wait_until(&self, what: &str, script: &str) {
        eventually(what, || (self.js(script) == true).then_some(()));
    }

    pub fn size(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    pub fn colours(&self, scheme: &str) {
        let feature = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &feature);
    }

    /// A picture of the whole page, for people to look at: target/tmp/console-NAME.png.
    pub fn picture(&self, name: &str) -> PathBuf {
        let taken = self.devtools("Page.captureScreenshot", &json!({ "format": "png", "captureBeyondViewport": true }));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("console-{name}.png"));
        fs::write(&path, STANDARD.decode(taken["data"].as_str().unwrap()).unwrap()).unwrap();
        path
    }

    /// Nothing went wrong that the browser has words for (errors of scripts and styles, violations of the
    /// policy), and nothing but this appliance was asked for anything.
    pub fn assert_clean(&self) {
        let said = self.complaints();
        assert!(said.is_empty(), "{said:#?}");
        self.assert_stayed_here();
    }

    /// What the browser complains of, from warnings on.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.ask("/se/log", &json!({ "type": "browser" })).unwrap();
        let loud =
            log.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        loud.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    fn assert_stayed_here(&self) {
        let log = self.ask("/se/log", &json!({ "type": "performance" })).unwrap();
        let mut asked = 0;
        for entry in log.as_array().unwrap() {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            let event = &event["message"];
            if event["method"] == "Network.requestWillBeSent" {
                let url = event["params"]["request"]["url"].as_str().unwrap();
                let own = url.strip_prefix(&self.origin).is_some_and(|rest| rest.starts_with('/'));
                // Its own pages, such as the one for new tabs, are no network.
                assert!(own || url.starts_with("data:") || url.starts_with("chrome://"), "{url}");
                asked += u32::from(own);
            }
        }
        assert!(asked > 20, "{asked} requests: does the browser still tell of them?");
    }
}

fn capabilities(profile: &Path) -> Value {
    let mut arguments: Vec<_> = ARGUMENTS.iter().map(|&argument| argument.to_owned()).collect();
    arguments.push(format!("--user-data-dir={}", profile.display()));
    json!({ "capabilities": { "alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": { "binary": "/usr/bin/chromium", "args": arguments, "perfLoggingPrefs": { "enableNetwork": true } },
        "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
    } } })
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium as well.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
