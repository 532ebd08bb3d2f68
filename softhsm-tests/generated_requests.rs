//! A hundred thousand requests that nobody would think of: acceptable ones, taken apart and put
//! together wrongly by dice. The same seed throws the same requests (their nonces differ).

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
};

use serde_json::{Value, json};

use crate::support::{
    appliance::{Answer, Appliance, attestation_request},
    dice::Dice,
    http::{Connection, request},
    routes,
};

const REQUESTS: usize = 100_000;
const THREADS: usize = 4;
const SEED: u64 = 0x5eed_0002;

/// Where bodies are thrown. Not at what would revoke or destroy keys: that would only end the game.
const BODIES: [&str; 8] = [
    "/api/v1/nonces",
    "/api/v1/nonces/batch",
    "/api/v1/attestations",
    "/api/v1/attestations/verify",
    "/api/v1/sign",
    "/api/v1/verify",
    "/api/v1/keys",
    "/api/v1/keys/rotate",
];

/// What one thread has seen.
#[derive(Debug, Default)]
struct Seen {
    statuses: BTreeMap<u16, usize>,
    problems: BTreeSet<String>,
    /// Successful answers for each path with a body.
    accepted: BTreeMap<String, usize>,
    /// Issued and not used.
    nonces: Vec<String>,
}

/// A request, and how strictly its answer is judged.
struct Throw {
    method: String,
    path: String,
    bytes: Vec<u8>,
    /// It may be no HTTP at all: the answer may be bare, and the connection is not used again.
    raw: bool,
}

struct Caller {
    dice: Dice,
    /// The paths with a body, each with one that is accepted.
    bodies: Vec<(String, Value)>,
    plain: Vec<(&'static str, String)>,
    seen: Seen,
}

impl Caller {
    fn throw(&mut self) -> Throw {
        if self.dice.one_in(6) {
            return self.throw_at_paths();
        }
        let (path, body) = self.dice.pick(&self.bodies);
        let body = self.with_nonce(&path, body);
        let mut text = body.to_string();
        for _ in 0..self.dice.pick(&[0, 0, 0, 1, 1, 2, 3]) {
            text = self.misshape(text);
        }
        let mut bytes = text.into_bytes();
        if self.dice.one_in(6) {
            self.damage(&mut bytes);
        }
        let mut headers = vec![("content-type", "application/json")];
        if self.dice.one_in(12) {
            headers[0].1 =
                self.dice.pick(&["", "text/plain", "application/json; charset=x", "application/jsonp", "\u{7f}"]);
        }
        if self.dice.one_in(20) {
            let header = [("content-encoding", "gzip"), ("x-request-id", "a b"), ("accept", "\"<>"), ("te", "x")];
            headers.push(self.dice.pick(&header));
        }
        let raw = headers[0].1 == "\u{7f}";
        let bytes = request("POST", &path, &headers, &bytes);
        if self.dice.one_in(50) {
            return self.spoil_head(bytes);
        }
        Throw { method: "POST".into(), path, bytes, raw }
    }

    /// Other methods, and paths with a few characters changed.
    fn throw_at_paths(&mut self) -> Throw {
        let (method, path) = self.dice.pick(&self.plain);
        let mut path = path.into_bytes();
        let mut method = method;
        if self.dice.one_in(2) {
            method = self.dice.pick(&["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "X"]);
        }
        for _ in 0..self.dice.below(4) {
            let at = 1 + self.dice.below(path.len());
            let part =
                self.dice.pick(&["%", "%2f", "%00", "%ff", "..", "/", ":", ";", "?", "#", "a", "0", "//", "%zz", "{}"]);
            path.splice(at..at, part.bytes());
        }
        let path = String::from_utf8(path).unwrap();
        // Not every character may stand in a request line.
        let raw = path.contains(['{', '#', '%']);
        Throw { method: method.into(), bytes: request(method, &path, &[], b""), path, raw }
    }

    /// A request line or header with some bytes changed. Whatever the length is now, nothing follows.
    fn spoil_head(&mut self, mut bytes: Vec<u8>) -> Throw {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        for _ in 0..=self.dice.below(3) {
            let at = self.dice.below(end);
            bytes[at] = self.dice.byte();
        }
        Throw { method: String::new(), path: String::new(), bytes, raw: true }
    }

    fn with_nonce(&mut self, path: &str, mut body: Value) -> Value {
        if path == "/api/v1/attestations" {
            // Mostly a fresh one; sometimes one that was used, or never issued.
            match self.dice.below(10) {
                0 => {}
                1 => body["nonce"] = json!(hex::encode((0..32).map(|_| self.dice.byte()).collect::<Vec<_>>())),
                2 => body["nonce"] = self.seen.nonces.last().map_or(Value::Null, |nonce| json!(nonce)),
                _ => body["nonce"] = self.seen.nonces.pop().map_or(Value::Null, Value::String),
            }
            match self.dice.below(20) {
                0 => body["type"] = json!("sms_verification"),
                1 => body["issued_at"] = json!("2026-01-31T09:30:00+01:00"),
                2 => body["subject"]["account_address"] = json!("virtengine1other"),
                _ => {}
            }
        } else if path == "/api/v1/nonces/batch" && self.dice.one_in(40) {
            body["count"] = json!(1000);
        } else if path.starts_with("/api/v1/nonces") && self.dice.one_in(2) {
            body["subject_address"] = Value::Null;
        }
        body
    }

    /// Changes one thing in a JSON text. What is no JSON any more is only repeated or cut.
    fn misshape(&mut self, text: String) -> String {
        let Ok(mut value) = serde_json::from_str::<Value>(&text) else { return text };
        match self.dice.below(8) {
            0 => repeat_a_field(&mut self.dice, &text),
            1 => self.some_json(3).to_string(),
            _ => {
                let spot = somewhere(&mut self.dice, &mut value);
                *spot = match (self.dice.below(6), spot.take()) {
                    (0, Value::Object(mut fields)) => {
                        fields.insert(self.dice.text(), self.some_json(1));
                        Value::Object(fields)
                    }
                    (1 | 2, Value::Object(mut fields)) => {
                        let names: Vec<_> = fields.keys().cloned().collect();
                        if let Some(value) = names.first().and_then(|_| fields.remove(&self.dice.pick(&names)))
                            && self.dice.one_in(2)
                        {
                            fields.insert(self.dice.text(), value);
                        }
                        Value::Object(fields)
                    }
                    (3, value) => json!([value]),
                    (4, value) => json!({ "a": value }),
                    _ => self.some_json(2),
                };
                value.to_string()
            }
        }
    }

    fn some_json(&mut self, depth: usize) -> Value {
        match self.dice.below(if depth == 0 { 8 } else { 10 }) {
            0 => Value::Null,
            1 => json!(self.dice.one_in(2)),
            2 if self.dice.one_in(2) => json!(self.dice.below(100_000)),
            2 => json!(self.dice.next()),
            3 => json!(self.dice.next().cast_signed()),
            4 => json!(self.dice.pick(&[0, 1, 99, 100, 101, 300, 3600, 86_400])),
            5 => json!(f64::from_bits(self.dice.next())),
            6 => json!(self.dice.text().repeat(1 + self.dice.below(200))),
            7 => json!(self.dice.text()),
            8 => (0..self.dice.below(4)).map(|_| self.some_json(depth - 1)).collect(),
            _ => {
                Value::Object((0..self.dice.below(4)).map(|_| (self.dice.text(), self.some_json(depth - 1))).collect())
            }
        }
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.dice.below(3) {
            let at = self.dice.below(bytes.len() + 1);
            match self.dice.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.dice.byte()),
                2 => drop(bytes.splice(at..at, vec![self.dice.pick(b"[{\"\\ 9"); 1 + self.dice.below(300)])),
                _ if at < bytes.len() => bytes[at] = self.dice.byte(),
                _ => bytes.push(self.dice.byte()),
            }
        }
    }

    fn note(&mut self, throw: &Throw, answer: &Answer) {
        *self.seen.statuses.entry(answer.status).or_default() += 1;
        let shown = || format!("{} {:?}: {}", answer.status, String::from_utf8_lossy(&throw.bytes), answer.text());
        if answer.status >= 400 && throw.method != "HEAD" && !(throw.raw && answer.body.is_empty()) {
            self.seen.problems.insert(answer.problem());
        }
        assert!(answer.status < 500, "{}", shown());
        assert!(!answer.text().contains("CKR_"), "{}", shown());
        if answer.status < 300 && throw.method == "POST" {
            let path = throw.path.split('?').next().unwrap();
            *self.seen.accepted.entry(path.to_owned()).or_default() += 1;
            if throw.path.starts_with("/api/v1/nonces") {
                let issued = answer.json();
                let issued = issued.as_array().cloned().unwrap_or_else(|| vec![issued]);
                self.seen.nonces.extend(issued.iter().map(|one| one["nonce"].as_str().unwrap().to_owned()));
            }
        }
    }

    /// Throws `count` requests over connections that are kept as long as the server keeps them.
    fn play(mut self, base: &str, count: usize) -> Seen {
        let mut connection = Connection::open(base);
        for _ in 0..count {
            let throw = self.throw();
            let mut answer = exchange(&mut connection, &throw);
            if answer.is_none() && !throw.raw {
                // The server had closed the kept connection.
                connection = Connection::open(base);
                answer = exchange(&mut connection, &throw);
                assert!(answer.is_some(), "no answer to {:?}", String::from_utf8_lossy(&throw.bytes));
            }
            if let Some(answer) = &answer {
                self.note(&throw, answer);
            }
            if throw.raw || answer.is_none_or(|answer| answer.header("connection") == "close") {
                connection = Connection::open(base);
            }
        }
        self.seen
    }
}

fn exchange(connection: &mut Connection, throw: &Throw) -> Option<Answer> {
    let _ = connection.send(&throw.bytes);
    if throw.raw {
        connection.finish_sending();
    }
    let answer = if throw.method == "HEAD" { connection.answer_to_head() } else { connection.answer() };
    answer.unwrap_or(None)
}

/// Writes one field of one object twice, which no JSON library would do.
fn repeat_a_field(dice: &mut Dice, text: &str) -> String {
    let objects: Vec<_> = text.match_indices('{').map(|(at, _)| at + 1).collect();
    let names: Vec<_> = text.split('"').skip(1).step_by(2).collect();
    if objects.is_empty() || names.is_empty() {
        return text.to_owned();
    }
    let at = dice.pick(&objects);
    let name = dice.pick(&names);
    let comma = if text[at..].starts_with('}') { "" } else { "," };
    format!("{}\"{name}\":{}{comma}{}", &text[..at], dice.below(100), &text[at..])
}

/// A random place in a value.
fn somewhere<'a>(dice: &mut Dice, value: &'a mut Value) -> &'a mut Value {
    let inside = match &*value {
        Value::Object(fields) => fields.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    if inside == 0 || dice.one_in(4) {
        return value;
    }
    let at = dice.below(inside);
    let inner = match value {
        Value::Object(fields) => fields.values_mut().nth(at).unwrap(),
        Value::Array(items) => &mut items[at],
        _ => unreachable!("counted above"),
    };
    somewhere(dice, inner)
}

/// An acceptable body with every field that the route knows, so that the dice find them all.
fn full_body(path: &str, appliance: &Appliance) -> Value {
    let mut body = routes::acceptable_body(path, appliance);
    let optional = match path {
        "/api/v1/nonces" | "/api/v1/nonces/batch" => {
            json!({ "subject_address": "virtengine1qyfe", "window_seconds": 3600 })
        }
        "/api/v1/attestations" => json!({
            "subject": { "account_address": "virtengine1qyfe", "scope_id": "s", "request_id": "r" },
            "issued_at": null,
            "expires_at": null,
            "verification_proofs": [{
                "proof_type": "match", "content_hash": "ab", "score": 7, "passed": true, "threshold": 6,
                "timestamp": "2026-01-31T09:30:00Z",
            }],
            "model_version": "1",
            "metadata": { "a": "1", "b": "2" },
        }),
        // The first key is rotated out in the course of the game.
        "/api/v1/sign" => json!({ "key_id": null, "request_id": "r" }),
        "/api/v1/verify" => json!({ "key_id": "veid-signer-dev:1", "request_id": "r" }),
        "/api/v1/keys" => json!({ "algorithm": "P-256" }),
        "/api/v1/keys/rotate" => json!({ "notes": "n", "overlap_seconds": 3600, "algorithm": "P-256" }),
        _ => json!({}),
    };
    body.as_object_mut().unwrap().extend(optional.as_object().unwrap().clone());
    body
}

fn callers(appliance: &Appliance) -> impl Iterator<Item = Caller> {
    let bodies = BODIES.map(|path| (path.to_owned(), full_body(path, appliance))).to_vec();
    let plain: Vec<_> = routes::all()
        .iter()
        .map(|route| (route.method, route.path.replace("{key_id}", "veid-signer-dev:1").replace("{rotation_id}", "x")))
        .collect();
    (0..THREADS).map(move |thread| Caller {
        dice: Dice::new(SEED + thread as u64),
        bodies: bodies.clone(),
        plain: plain.clone(),
        seen: Seen::default(),
    })
}

#[test]
fn no_generated_request_makes_a_panic_or_a_server_error() {
    let appliance = Appliance::dev();
    let seen: Vec<Seen> = thread::scope(|scope| {
        let threads: Vec<_> =
            callers(&appliance).map(|caller| scope.spawn(|| caller.play(&appliance.api, REQUESTS / THREADS))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut all = Seen::default();
    for seen in seen {
        seen.statuses.into_iter().for_each(|(status, count)| *all.statuses.entry(status).or_default() += count);
        seen.accepted.into_iter().for_each(|(path, count)| *all.accepted.entry(path).or_default() += count);
        all.problems.extend(seen.problems);
        all.nonces.extend(seen.nonces);
    }
    println!("{REQUESTS} requests, seed {SEED:#x}: {:?} {:?} {:?}", all.statuses, all.problems, all.accepted);

    // The dice reached every route, and kinds of refusal from the first check to the last.
    for path in BODIES {
        assert!(all.accepted.contains_key(path), "{path} is not in {:?}", all.accepted);
    }
    for problem in ["invalid-json", "unsupported-media-type", "nonce-subject-mismatch", "nonce-store-full"] {
        assert!(all.problems.contains(problem), "{problem} is not in {:?}", all.problems);
    }
    for problem in &all.problems {
        assert_eq!(appliance.get(&format!("/problems/{problem}")).status, 200, "{problem}");
    }

    let mut signed = BTreeSet::new();
    for record in appliance.audit_events("attestation_signed") {
        let nonce = record["details"]["nonce_sha256"].as_str().unwrap().to_owned();
        assert!(signed.insert(nonce), "a second signature for one nonce: {record}");
    }
    assert!(signed.len() > 1000, "{}", signed.len());

    // The store is full by now, and most of what is left is good for this request.
    let last = all.nonces.iter().map(|nonce| appliance.post("/api/v1/attestations", &attestation_request(nonce)));
    let attestation = last.take(100).find(|answer| answer.status == 200).unwrap().json();
    assert_eq!(appliance.post("/api/v1/attestations/verify", &attestation).ok()["valid"], true);
    assert_eq!(appliance.get("/healthz").status, 200);
    let log = appliance.stop();
    assert!(!log.contains("panicked"), "{log}");
}
