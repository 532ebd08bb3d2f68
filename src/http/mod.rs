//! The front door: actix-web is imported here and nowhere else. One file a resource;
//! `problem.rs` is the only place with error status codes.

pub mod abuse;
pub mod access;
pub mod activity;
mod admission;
pub mod approvals;
pub mod attestations;
pub mod audit;
mod authn;
pub mod blocks;
pub mod body;
mod changes;
mod connections;
pub mod console;
mod expiry;
pub mod exposition;
mod foreign;
pub mod health;
pub mod index;
pub mod jwks;
pub mod keys;
pub mod lifecycle;
pub mod maintenance;
pub mod me;
pub mod nonces;
pub mod opaque;
pub mod openapi;
pub mod problem;
mod proxy;
mod pulse;
mod request;
pub mod rotations;
pub mod server;
pub mod signer;
mod tls;
mod trace;
mod unix_socket;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use serde::Deserialize;

pub use expiry::Expiry;
pub use pulse::Pulse;
pub use server::{BindError, Reloader, Servers, Wires};
pub use tls::TlsConfig;

/// `[http]` of the configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the API listens, without TLS.
    pub listen: SocketAddr,
    /// `serve` listens beyond loopback without TLS or authentication only when this says so.
    pub allow_unauthenticated_network_access: bool,
    /// A socket for whoever works on this machine.
    pub unix_socket: Option<PathBuf>,
    /// Who may open it, as for `chmod`.
    pub unix_socket_mode: String,
    /// Connections that one address (IPv6: one /64) may hold at once.
    pub max_connections_per_address: usize,
    /// Longest time that the head of a request may take to arrive.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub head_time: Duration,
    /// Threads that serve requests; left out: one for each core.
    pub workers: Option<usize>,
    /// Requests in progress may take this long to finish after SIGTERM.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub drain: Duration,
    /// How long `/readyz` says no after SIGTERM before anything is refused: as long as a balancer needs
    /// to notice.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub leave: Duration,
    /// Proxies whose word on the address of a caller is taken.
    #[serde(deserialize_with = "crate::network::deserialize_list")]
    pub trusted_proxies: Vec<IpNet>,
    /// The header they say it in.
    pub proxy_header: ProxyHeader,
    /// Whether there is a page for operators at `/console`.
    pub console: bool,
}

/// Where a proxy says whom it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ProxyHeader {
    #[serde(rename = "X-Forwarded-For")]
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            allow_unauthenticated_network_access: false,
            unix_socket: None,
            unix_socket_mode: "0660".into(),
            max_connections_per_address: 1000,
            head_time: Duration::from_secs(5),
            workers: None,
            drain: Duration::from_secs(10),
            leave: Duration::ZERO,
            trusted_proxies: Vec::new(),
            proxy_header: ProxyHeader::XForwardedFor,
            console: true,
        }
    }
}

impl Config {
    /// The rules that the types do not hold.
    pub fn check(&self) -> Result<(), String> {
        if !self.listen.ip().is_loopback() && !self.allow_unauthenticated_network_access {
            return Err(format!(
                "http.listen = \"{}\" is not loopback, and callers are not authenticated there: it has no TLS, so whoever reaches it could \
                 have attestations signed, and whoever listens on the way could take the keys of others. Listen on 127.0.0.1 or [::1] \
                 and let the network in through [tls], or set http.allow_unauthenticated_network_access = true",
                self.listen
            ));
        }
        self.socket_mode()?;
        if !(1..=1_000_000).contains(&self.max_connections_per_address) {
            return Err("http.max_connections_per_address must be between 1 and 1000000".into());
        }
        if self.head_time.is_zero() || self.head_time > Duration::from_secs(60) {
            return Err("http.head_time must be between 1ms and 60s".into());
        }
        if self.workers.is_some_and(|workers| workers == 0 || workers > 512) {
            return Err("http.workers must be between 1 and 512".into());
        }
        if self.leave > Duration::from_secs(60) {
            return Err("http.leave must be at most 60s".into());
        }
        if self.drain > Duration::from_secs(300) {
            return Err("http.drain must be at most 300s".into());
        }
        Ok(())
    }

    /// Whether the socket could be made where it is wanted.
    pub fn check_socket_place(&self) -> Result<(), String> {
        let Some(directory) = self.unix_socket.as_deref().and_then(Path::parent) else { return Ok(()) };
        if directory.as_os_str().is_empty() || directory.is_dir() {
            return Ok(());
        }
        Err(format!(
            "http.unix_socket: there is no directory {0}: make it (systemd: RuntimeDirectory=), for the service alone: \
             install -d -m 0750 -o USER {0}",
            directory.display()
        ))
    }

    /// `unix_socket_mode` as a number. Nobody executes a socket.
    pub(crate) fn socket_mode(&self) -> Result<u32, String> {
        let mode = u32::from_str_radix(&self.unix_socket_mode, 8).ok().filter(|mode| mode & !0o666 == 0);
        mode.ok_or_else(|| {
            format!("http.unix_socket_mode = {:?} is not a mode such as \"0660\"", self.unix_socket_mode)
        })
    }
}

/// `[metrics]` of the configuration file: a listener of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    pub listen: SocketAddr,
    /// Whether readers of the metrics have to show a bearer key or token of a client with the role
    /// `metrics`.
    pub authenticate: bool,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9090)), authenticate: false }
    }
}
