//! Clients that ask as fast as they are answered.

use std::{
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use ureq::Agent;

use super::{
    Failure,
    figures::{Figures, cpu},
    place::Serving,
};

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) enum Job {
    /// Nothing but an answer.
    Nothing,
    /// A nonce.
    Nonce,
    /// A signature over data: the token and the audit trail.
    Data,
    /// An attestation: all of it.
    Attestation,
}

impl Job {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "HTTP alone",
            Self::Nonce => "HTTP and nonce store: a nonce",
            Self::Data => "HTTP, token and audit: data signed",
            Self::Attestation => "everything: an attestation",
        }
    }

    /// Whether the token signs once for each.
    pub fn signs(self) -> bool {
        matches!(self, Self::Data | Self::Attestation)
    }
}

/// The clients' side of one appliance.
pub(super) struct Load<'a> {
    pub serving: &'a Serving,
    /// Fetched before, so that only what is measured is measured.
    nonces: Mutex<Vec<String>>,
}

impl<'a> Load<'a> {
    pub fn on(serving: &'a Serving) -> Self {
        Self { serving, nonces: Mutex::default() }
    }

    /// Fetches nonces until there are so many.
    pub fn prepare(&self, wanted: usize) -> Result<(), Failure> {
        let agent = agent();
        while self.nonces.lock().len() < wanted {
            let body = json!({ "attestation_type": "email_verification", "count": 1000 });
            let answer = ask(&agent, &format!("{}/api/v1/nonces/batch", self.serving.api), Some(&encoded(&body)))?;
            let nonces: Vec<Value> =
                serde_json::from_slice(&answer).map_err(|error| Failure::Asked(error.to_string()))?;
            let nonces = nonces.iter().filter_map(|nonce| nonce["nonce"].as_str().map(str::to_owned));
            self.nonces.lock().extend(nonces);
        }
        Ok(())
    }

    /// So many clients for so long.
    pub fn run(&self, job: Job, clients: usize, time: Duration) -> Result<Figures, Failure> {
        let (begun, before) = (Instant::now(), cpu(self.serving.pid()));
        let taken: Result<Vec<Vec<Duration>>, Failure> = thread::scope(|scope| {
            let clients: Vec<_> = (0..clients).map(|_| scope.spawn(|| self.ask(job, begun + time))).collect();
            clients.into_iter().map(|client| client.join().expect("it does not panic")).collect()
        });
        let (elapsed, cpu) = (begun.elapsed(), cpu(self.serving.pid()).saturating_sub(before));
        Ok(Figures::of(job.name(), clients, taken?.concat(), elapsed, cpu))
    }

    fn ask(&self, job: Job, end: Instant) -> Result<Vec<Duration>, Failure> {
        let (agent, mut taken) = (agent(), Vec::new());
        while Instant::now() < end {
            let Some((path, body)) = self.request(job) else { break };
            let url = format!("{}{path}", self.serving.api);
            let begun = Instant::now();
            ask(&agent, &url, body.as_deref())?;
            taken.push(begun.elapsed());
        }
        Ok(taken)
    }

    /// `None` when the nonces are used up.
    fn request(&self, job: Job) -> Option<(&'static str, Option<Vec<u8>>)> {
        let (path, body) = match job {
            Job::Nothing => return Some(("/livez", None)),
            Job::Nonce => ("/api/v1/nonces", json!({ "attestation_type": "email_verification" })),
            Job::Data => ("/api/v1/sign", json!({ "data": "AAECAwQFBgcICQoLDA0ODw==", "purpose": "bench" })),
            Job::Attestation => {
                let nonce = self.nonces.lock().pop()?;
                let subject = json!({ "account_address": "virtengine1qyfe" });
                let body = json!({
                    "type": "email_verification", "subject": subject, "nonce": nonce,
                    "validity_seconds": 3600, "score": 91, "confidence": 88,
                });
                ("/api/v1/attestations", body)
            }
        };
        Some((path, Some(encoded(&body))))
    }
}

fn encoded(body: &Value) -> Vec<u8> {
    serde_json::to_vec(body).expect("text and numbers")
}

/// Posts a body, or gets without one; the answer.
fn ask(agent: &Agent, url: &str, body: Option<&[u8]>) -> Result<Vec<u8>, Failure> {
    let answer = match body {
        None => agent.get(url).call(),
        Some(body) => agent.post(url).content_type("application/json").send(body),
    };
    answer.and_then(|mut answer| answer.body_mut().read_to_vec()).map_err(|error| Failure::Asked(error.to_string()))
}

fn agent() -> Agent {
    Agent::config_builder().timeout_global(Some(Duration::from_secs(30))).build().into()
}
