//! The binary under test, running.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

use super::{
    eventually,
    pkcs11_tool::Pkcs11Tool,
    softhsm::{MODULE, SoftHsm},
    tool,
};

pub const BINARY: &str = env!("CARGO_BIN_EXE_verification-signer");

/// A running appliance; killed when dropped.
pub struct Appliance {
    child: Child,
    pub home: PathBuf,
    temporary: Option<TempDir>,
    log: PathBuf,
    pub api: String,
    pub metrics: String,
    agent: Agent,
}

/// A response, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        tool::text(&self.body)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The name of the problem type, e.g. `unknown-key`.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{} {}", self.status, self.text());
        self.json()["type"].as_str().unwrap().strip_prefix("/problems/").unwrap().to_owned()
    }

    /// Asserts success and returns the body.
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// Asserts success and returns the body as text.
    pub fn ok_text(self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.text()
    }
}

impl Appliance {
    /// `dev` with a state directory of its own.
    pub fn dev() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let home = temporary.path().to_owned();
        let mut appliance = Self::dev_in(&home);
        appliance.temporary = Some(temporary);
        appliance
    }

    /// `dev` in this state directory.
    pub fn dev_in(home: &Path) -> Self {
        Self::start(dev_command(home), home).unwrap_or_else(|(status, log)| panic!("dev ended with {status}: {log}"))
    }

    /// `serve` with this configuration beside this token; how it ended, and its log, if it did not start.
    pub fn serve(token: &SoftHsm, config: &Path) -> Result<Self, (ExitStatus, String)> {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--config"]).arg(config).envs(token.environment());
        Self::start(command, config.parent().unwrap())
    }

    /// Starts a command that prints where it listens: `dev` on standard output, `serve` in its log.
    pub fn start(mut command: Command, home: &Path) -> Result<Self, (ExitStatus, String)> {
        let log = home.join(format!("log-{}.txt", uuid()));
        let file = fs::File::create(&log).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        let found = eventually("the appliance starts or ends", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some(addresses) = addresses(&text) {
                return Some(Ok(addresses));
            }
            child.try_wait().unwrap().map(|status| Err((status, fs::read_to_string(&log).unwrap_or_default())))
        });
        let (api, metrics) = found?;
        let agent = Agent::config_builder().http_status_as_error(false).build().into();
        Ok(Self {
            child,
            home: home.to_owned(),
            temporary: None,
            log,
            api: format!("http://{api}"),
            metrics: format!("http://{metrics}"),
            agent,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The audit records in all files that are not compressed, oldest first.
    pub fn audit_log(&self) -> String {
        let mut files: Vec<_> =
            fs::read_dir(self.home.join("audit")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("audit.log.") && name.rsplit('-').next().unwrap().bytes().all(|b| b.is_ascii_digit())
        });
        files.sort();
        files.push(self.home.join("audit/audit.log"));
        files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
    }

    /// The records of one type in the audit file.
    pub fn audit_events(&self, kind: &str) -> Vec<Value> {
        let log = self.audit_log();
        // What follows the last newline is being written right now.
        let log = log.rsplit_once('\n').map_or("", |(complete, _)| complete);
        let records = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.filter(|record| record["type"] == kind).collect()
    }

    /// pkcs11-tool on the token that `dev` made.
    /// Sequence numbers of announcements whose outcome is not on record.
    pub fn unanswered(&self) -> Vec<u64> {
        let log = self.audit_log();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let records: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let answered: Vec<_> = records.iter().map(|record| &record["details"]["intent_sequence"]).collect();
        let pending = records.iter().filter(|record| record["outcome"] == "pending");
        pending
            .filter(|one| !answered.contains(&&one["sequence"]))
            .map(|one| one["sequence"].as_u64().unwrap())
            .collect()
    }

    pub fn dev_token(&self) -> Pkcs11Tool {
        Pkcs11Tool {
            module: MODULE.into(),
            environment: vec![("SOFTHSM2_CONF", self.home.join("softhsm2.conf"))],
            label: "verification-signer-dev".into(),
            pin: fs::read_to_string(self.home.join("pin")).unwrap(),
        }
    }

    pub fn signal(&self, name: &str) {
        tool::run("kill", &["-s", name, &self.pid().to_string()], &[]);
    }

    /// Stops it as systemd does; it must end by itself with success.
    pub fn stop(mut self) -> String {
        self.signal("TERM");
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{status} {}", self.log());
        self.log()
    }

    /// Waits for its end by whatever cause.
    pub fn wait(mut self) -> ExitStatus {
        eventually("the appliance ends", || self.child.try_wait().unwrap())
    }

    pub fn get(&self, path: &str) -> Answer {
        answer(self.agent.get(format!("{}{path}", self.api)).call())
    }

    pub fn get_metrics(&self) -> String {
        answer(self.agent.get(format!("{}/metrics", self.metrics)).call()).text()
    }

    /// The value of one series, named with its labels.
    pub fn metric(&self, series: &str) -> String {
        let text = self.get_metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series} in {text}")).to_owned()
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_bytes(path, "application/json", &serde_json::to_vec(body).unwrap())
    }

    pub fn post_empty(&self, path: &str) -> Answer {
        answer(self.agent.post(format!("{}{path}", self.api)).send_empty())
    }

    pub fn post_bytes(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        answer(self.agent.post(format!("{}{path}", self.api)).header("content-type", content_type).send(body))
    }

    pub fn delete(&self, path: &str) -> Answer {
        answer(self.agent.delete(format!("{}{path}", self.api)).call())
    }

    pub fn put_bytes(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        answer(self.agent.put(format!("{}{path}", self.api)).header("content-type", content_type).send(body))
    }

    /// Stops it cleanly; what it kept on disk lives as long as the value returned.
    pub fn stop_and_keep(mut self) -> Option<TempDir> {
        let temporary = self.temporary.take();
        self.stop();
        temporary
    }

    /// A fresh nonce for an e-mail attestation.
    pub fn nonce(&self) -> String {
        let issued = self.post("/api/v1/nonces", &json!({ "attestation_type": "email_verification" })).ok();
        issued["nonce"].as_str().unwrap().to_owned()
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of {}:\n{}", self.api, fs::read_to_string(&self.log).unwrap_or_default());
        }
        // Only now may its files go.
        drop(self.temporary.take());
    }
}

/// `dev` on free ports.
pub fn dev_command(state_directory: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["dev", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--state-dir"]).arg(state_directory);
    command
}

/// A small request that is acceptable as it is.
pub fn attestation_request(nonce: &str) -> Value {
    json!({
        "type": "email_verification",
        "subject": { "account_address": "virtengine1qyfe" },
        "nonce": nonce,
        "validity_seconds": 3600,
        "score": 91,
        "confidence": 88,
    })
}

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = result.unwrap();
    let body = response.body_mut().read_to_vec().unwrap();
    Answer { status: response.status().as_u16(), headers: response.headers().clone(), body }
}

/// The addresses in `ready: API http://A  metrics http://M/metrics …` or in the JSON log line.
fn addresses(log: &str) -> Option<(String, String)> {
    if let Some(line) = log.lines().find(|line| line.starts_with("ready: ")) {
        let mut urls = line.split_whitespace().filter_map(|word| word.strip_prefix("http://"));
        return Some((urls.next()?.to_owned(), urls.next()?.trim_end_matches("/metrics").to_owned()));
    }
    let ready = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["message"] == "ready")?;
    Some((ready["api"].as_str()?.to_owned(), ready["metrics"].as_str()?.to_owned()))
}

fn uuid() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
