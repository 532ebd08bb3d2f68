//! A client that many threads can have, and that survives the end of the server.

use serde_json::{Value, json};
use ureq::Agent;

use super::appliance::Answer;

/// Talks to one appliance.
#[derive(Clone)]
pub struct Client {
    api: String,
    agent: Agent,
}

impl Client {
    /// A client of the API at `api`, with connections of its own.
    pub fn new(api: &str) -> Self {
        Self { api: api.to_owned(), agent: Agent::config_builder().http_status_as_error(false).build().into() }
    }

    /// Posts JSON; `None` when the connection ended without an answer.
    pub fn post(&self, path: &str, body: &Value) -> Option<Answer> {
        let request = self.agent.post(format!("{}{path}", self.api)).header("content-type", "application/json");
        answer(request.send(&serde_json::to_vec(body).unwrap()[..]))
    }

    /// Fetches a nonce; `None` when there is none to be had.
    pub fn nonce(&self) -> Option<String> {
        let answer = self.post("/api/v1/nonces", &json!({ "attestation_type": "email_verification" }))?;
        Some(answer.json()["nonce"].as_str()?.to_owned())
    }
}

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Option<Answer> {
    let mut response = result.ok()?;
    let body = response.body_mut().read_to_vec().ok()?;
    Some(Answer { status: response.status().as_u16(), headers: response.headers().clone(), body })
}
