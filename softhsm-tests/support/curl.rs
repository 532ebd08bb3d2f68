//! curl, as a client with any wire and credential.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::Value;
use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use super::{appliance::Answer, pki::Leaf, tool};

/// How to reach an appliance, and as whom.
#[derive(Clone, Debug)]
pub struct Curl {
    base: String,
    arguments: Vec<String>,
}

impl Curl {
    /// At this address, e.g. `https://127.0.0.1:8443`.
    pub fn at(base: &str) -> Self {
        Self { base: base.to_owned(), arguments: Vec::new() }
    }

    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    pub fn header(self, header: &str) -> Self {
        self.with(&["--header", header])
    }

    pub fn bearer(self, credential: &str) -> Self {
        self.header(&format!("Authorization: Bearer {credential}"))
    }

    pub fn certificate(self, leaf: &Leaf) -> Self {
        self.with(&["--cert", leaf.certificate.to_str().unwrap(), "--key", leaf.key.to_str().unwrap()])
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).unwrap()
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, Some(body)).unwrap()
    }

    /// The answer, or curl's exit code and words.
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, (i32, String)> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--include", "--max-time", "60", "--request", method]);
        // Sent as it is written: `..` and all.
        command.args(["--path-as-is", "--header", "Expect:"]).args(&self.arguments);
        if body.is_some() {
            command.args(["--header", "content-type: application/json", "--data-binary", "@-"]);
        }
        let mut child = command
            .arg(format!("{}{path}", self.base))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = body.map(ToString::to_string).unwrap_or_default();
        // curl may have ended before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            Ok(answer(&output.stdout))
        } else {
            Err((output.status.code().unwrap_or(-1), tool::text(&output.stderr)))
        }
    }
}

fn answer(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = tool::text(&bytes[..end]);
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value.trim()).unwrap());
    }
    Answer { status, headers, body: bytes[end + 4..].to_vec() }
}
