//! Finding a server and connecting to it: one address, Sentinels, or a Cluster.

use std::{path::Path, time::Duration};

use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisFuture, TlsCertificates, TlsMode, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
};
use secrecy::ExposeSecret;

use super::{
    config::{Config, ServerUrl, is_tls},
    failure::Failure,
    sentinel::Sentinels,
};
use crate::secret::{self, SecretError};

/// Why a configuration cannot be used. Never says what is in a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("cannot read {path}: {source}")]
    Read { path: std::path::PathBuf, source: std::io::Error },
    // Without the cause: a parser's message may repeat what it read.
    #[error("redis: the tls_* files are not a PEM certificate and its key")]
    Pem,
}

/// A way to the server that holds the nonces.
pub enum Servers {
    Single(Client),
    Sentinel(Sentinels),
    Cluster(Box<ClusterClient>),
}

/// A connection that many tasks share: their commands follow each other without waiting for each
/// other's answers. Cheap to clone.
#[derive(Clone)]
pub enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Who we are to the servers, and how we know them.
#[derive(Clone, Default)]
pub struct Credentials {
    settings: RedisConnectionInfo,
    certificates: Option<TlsCertificates>,
}

impl Servers {
    /// Reads the secrets and makes the clients. Nothing is connected yet.
    pub fn from_config(config: &Config) -> Result<Self, ConfigError> {
        config.check().map_err(ConfigError::Invalid)?;
        let certificates = certificates(config)?;
        let nodes = Credentials {
            settings: login(config.username.as_ref(), config.password_file.as_ref())?,
            certificates: certificates.clone(),
        };
        if let Some(url) = &config.url {
            return Ok(Self::Single(nodes.client(address(url)?)?));
        }
        if let Some(sentinel) = &config.sentinel {
            let own = Credentials {
                settings: login(sentinel.username.as_ref(), sentinel.password_file.as_ref())?,
                certificates,
            };
            let addresses = sentinel.urls.iter().map(address).collect::<Result<Vec<_>, _>>()?;
            let tls = addresses.first().is_some_and(is_tls);
            let sentinels = addresses.into_iter().map(|info| own.client(info)).collect::<Result<Vec<_>, _>>()?;
            return Ok(Self::Sentinel(Sentinels::new(sentinels, sentinel.master.clone(), tls, nodes)));
        }
        Ok(Self::Cluster(Box::new(cluster(config, &nodes)?)))
    }

    /// A new connection to the server that is the master now.
    pub async fn connect(&self, timeout: Duration) -> Result<Connection, Failure> {
        match self {
            Self::Single(client) => {
                let limits = timeouts(timeout);
                Ok(Connection::Server(client.get_multiplexed_async_connection_with_config(&limits).await?))
            }
            Self::Sentinel(sentinels) => Ok(Connection::Server(sentinels.connect(timeout).await?)),
            Self::Cluster(client) => Ok(Connection::Cluster(client.get_async_connection().await?)),
        }
    }
}

impl Credentials {
    /// A client for one server.
    pub fn client(&self, info: ConnectionInfo) -> Result<Client, ConfigError> {
        let db = info.redis_settings().db();
        let info = info.set_redis_settings(self.settings.clone().set_db(db)).set_tcp_settings(tcp());
        let client = match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        };
        client.map_err(|_| ConfigError::Pem)
    }

    /// A client for a server that a Sentinel named.
    pub fn client_at(&self, host: String, port: u16, tls: bool) -> Result<Client, ConfigError> {
        let address = if tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        self.client(address.into_connection_info().map_err(|_| ConfigError::Pem)?)
    }
}

pub fn timeouts(timeout: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout))
}

/// Without TCP_NODELAY a command waits in the kernel for the answer to the one before it.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn address(url: &ServerUrl) -> Result<ConnectionInfo, ConfigError> {
    url.parse().map_err(ConfigError::Invalid)
}

fn login(
    username: Option<&String>,
    password_file: Option<&std::path::PathBuf>,
) -> Result<RedisConnectionInfo, ConfigError> {
    let mut settings = RedisConnectionInfo::default();
    if let Some(username) = username {
        settings = settings.set_username(username);
    }
    if let Some(path) = password_file {
        settings = settings.set_password(secret::from_file(path)?.expose_secret());
    }
    Ok(settings)
}

fn certificates(config: &Config) -> Result<Option<TlsCertificates>, ConfigError> {
    let read = |path: &Path| std::fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source });
    let root_cert = config.tls_ca_file.as_deref().map(read).transpose()?;
    let client_tls = match (&config.tls_client_cert_file, &config.tls_client_key_file) {
        (Some(certificate), Some(key)) => Some(ClientTlsConfig {
            client_cert: read(certificate)?,
            client_key: secret::from_file(key)?.expose_secret().as_bytes().to_vec(),
        }),
        (Some(_), None) | (None, Some(_)) | (None, None) => None,
    };
    let any = root_cert.is_some() || client_tls.is_some();
    Ok(any.then_some(TlsCertificates { client_tls, root_cert }))
}

/// The cluster client sends a command again when a node has moved or the connection to it broke.
/// Every script takes being sent twice.
fn cluster(config: &Config, nodes: &Credentials) -> Result<ClusterClient, ConfigError> {
    const RETRIES: u32 = 3;
    let urls = config.urls();
    let addresses = urls.into_iter().map(address).collect::<Result<Vec<_>, _>>()?;
    let tls = addresses.first().is_some_and(is_tls);
    let mut builder = ClusterClient::builder(addresses)
        .tcp_settings(tcp())
        .retries(RETRIES)
        .connection_timeout(config.command_timeout)
        .response_timeout(config.command_timeout);
    if let Some(username) = nodes.settings.username() {
        builder = builder.username(username);
    }
    if let Some(password) = nodes.settings.password() {
        builder = builder.password(password);
    }
    if let Some(certificates) = nodes.certificates.clone().filter(|_| tls) {
        builder = builder.tls(TlsMode::Secure).certs(certificates);
    }
    builder.build().map_err(|_| ConfigError::Pem)
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
