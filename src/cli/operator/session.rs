//! One command's talk with the appliance: where its socket is, what it answered, what that means for
//! whoever typed the command.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde_json::Value;
use ureq::{Agent, Body, http::Response};

use super::{failure::Failure, progress, wire};
use crate::config::{Config, ConfigError};

/// Where the package puts the configuration, and `init` the socket.
const PACKAGED_CONFIG: &str = "/etc/verification-signer/config.toml";
pub(in crate::cli) const PACKAGED_SOCKET: &str = "/run/verification-signer/api.sock";

/// How to reach the appliance, and in which form to answer.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Connection {
    /// The appliance's Unix socket [default: the one that the configuration names]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The appliance's configuration [default: /etc/verification-signer/config.toml]
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// Print what the API answered, unchanged.
    #[arg(long)]
    json: bool,
}

impl Connection {
    fn socket(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.socket {
            return Ok(path.clone());
        }
        let file = self.config.as_deref().unwrap_or(Path::new(PACKAGED_CONFIG));
        match Config::load(file) {
            Ok(config) => config.http.unix_socket.ok_or_else(|| Failure::NoSocket(file.to_owned())),
            // Members of the socket's group need not be able to read the configuration.
            Err(ConfigError::Read { .. }) if self.config.is_none() => Ok(PACKAGED_SOCKET.into()),
            Err(error) => Err(Failure::Config(error.to_string())),
        }
    }
}

/// A way to the appliance.
pub(super) struct Session {
    agent: Agent,
    socket: PathBuf,
    pub(super) json: bool,
}

/// What the API answered: as it came, and as it is read here.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
    pub(super) value: Value,
    /// There is another page.
    pub(super) more: bool,
}

impl Session {
    pub(super) fn open(connection: &Connection) -> Result<Self, Failure> {
        let socket = connection.socket()?;
        Ok(Self { agent: wire::agent(&socket), socket, json: connection.json })
    }

    /// What names this appliance's socket in a command for somebody else; empty where it is the usual one.
    pub(super) fn elsewhere(&self) -> String {
        if self.socket == Path::new(PACKAGED_SOCKET) {
            return String::new();
        }
        format!(" --socket {}", self.socket.display())
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.get_with(path, &[])
    }

    /// With a query; its values are escaped here.
    pub(super) fn get_with(&self, path: &str, query: &[(&str, String)]) -> Result<Answer, Failure> {
        let request = self.agent.get(url(path)).query_pairs(query.iter().map(|(name, value)| (*name, value.as_str())));
        self.judged(request.call())
    }

    /// Whatever comes, 503 included: `/healthz` answers so where nothing can be signed.
    pub(super) fn look(&self, path: &str) -> Result<Answer, Failure> {
        self.read(self.agent.get(url(path)).call())
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        self.post_as(path, body, None)
    }

    /// A change of keys; with a reason to act alone, where approvals are asked for.
    pub(super) fn post_as(&self, path: &str, body: &Value, break_glass: Option<&str>) -> Result<Answer, Failure> {
        let mut request = self.agent.post(url(path)).content_type("application/json");
        if let Some(reason) = break_glass {
            request = request.header("Break-Glass", reason);
        }
        self.judged(progress::while_waiting(|| request.send(body.to_string())))
    }

    pub(super) fn put(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        self.judged(self.agent.put(url(path)).content_type("application/json").send(body.to_string()))
    }

    pub(super) fn delete(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        let request = self.agent.delete(url(path)).force_send_body().content_type("application/json");
        self.judged(request.send(body.to_string()))
    }

    fn judged(&self, answered: Result<Response<Body>, ureq::Error>) -> Result<Answer, Failure> {
        let answer = self.read(answered)?;
        match answer.status {
            // Approval is asked for, and nothing was done yet.
            202 => Err(Failure::Waiting(Box::new(answer))),
            200..=299 => Ok(answer),
            _ => Err(Failure::Refused(Box::new(answer))),
        }
    }

    fn read(&self, answered: Result<Response<Body>, ureq::Error>) -> Result<Answer, Failure> {
        let unreachable = |error: ureq::Error| self.unreachable(error);
        let mut response = answered.map_err(unreachable)?;
        let text = response.body_mut().with_config().limit(256 << 20).read_to_string().map_err(unreachable)?;
        let value = serde_json::from_str(&text).unwrap_or_default();
        let more = response.headers().contains_key("link");
        Ok(Answer { status: response.status().as_u16(), text, value, more })
    }

    fn unreachable(&self, error: ureq::Error) -> Failure {
        match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => Failure::NoSuchName,
            ureq::Error::Io(source) => Failure::Unreachable { socket: self.socket.clone(), source },
            other => Failure::Unreachable { socket: self.socket.clone(), source: io::Error::other(other) },
        }
    }

    /// Prints what the API answered, or what it means.
    pub(super) fn show(&self, answer: &Answer, people: impl FnOnce(&Value)) {
        if self.json {
            anstream::println!("{}", answer.text);
        } else {
            people(&answer.value);
        }
    }
}

/// The name is nobody's: the socket is what counts.
fn url(path: &str) -> String {
    format!("http://127.0.0.1{path}")
}
