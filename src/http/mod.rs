//! The front door: actix-web is imported here and nowhere else. One file a resource;
//! `problem.rs` is the only place with error status codes.

pub mod attestations;
pub mod audit;
pub mod body;
pub mod exposition;
pub mod health;
pub mod index;
pub mod jwks;
pub mod keys;
pub mod lifecycle;
pub mod nonces;
pub mod opaque;
pub mod problem;
mod request;
pub mod rotations;
pub mod server;
pub mod signer;

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

pub use server::Servers;

/// `[http]` of the configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// `serve` listens beyond loopback without authentication only when this says so.
    pub allow_unauthenticated_network_access: bool,
    /// Threads that serve requests; left out: one for each core.
    pub workers: Option<usize>,
    /// Requests in progress may take this long to finish after SIGTERM.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            allow_unauthenticated_network_access: false,
            workers: None,
            drain: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// The rules that the types do not hold.
    pub fn check(&self) -> Result<(), String> {
        if !self.listen.ip().is_loopback() && !self.allow_unauthenticated_network_access {
            return Err(format!(
                "http.listen = \"{}\" is not loopback, and callers are not authenticated: whoever reaches it could have attestations signed. \
                 Listen on 127.0.0.1 or [::1], or set http.allow_unauthenticated_network_access = true",
                self.listen
            ));
        }
        if self.workers.is_some_and(|workers| workers == 0 || workers > 512) {
            return Err("http.workers must be between 1 and 512".into());
        }
        if self.drain > Duration::from_secs(300) {
            return Err("http.drain must be at most 300s".into());
        }
        Ok(())
    }
}

/// `[metrics]` of the configuration file: a listener of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    pub listen: SocketAddr,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9090)) }
    }
}
