//! `[redis]` of the configuration file.

use std::{fmt, path::PathBuf, time::Duration};

use deadpool_redis::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use serde::Deserialize;

/// Where Redis is and how to talk to it. Exactly one of `url`, `sentinel` and `cluster` is named.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A single server: `redis://host:port/db`, or `rediss://` for TLS.
    pub url: Option<ServerUrl>,
    pub sentinel: Option<Sentinel>,
    pub cluster: Option<Cluster>,
    /// ACL user on the servers; without it, Redis' default user. It needs `~virtengine:veid:*` and
    /// `+evalsha +script|load +wait +info +time +exists +get +set +sadd +smembers +hget +hset +hmget +hgetall
    /// +hincrby +hdel +hvals +zadd +zrem +zcard +zscore +zincrby +zrange +zremrangebyrank +zremrangebyscore
    /// +pexpire +pttl +unlink +del`.
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    /// Certificate authorities that the servers are checked against; without it, the system's.
    pub tls_ca_file: Option<PathBuf>,
    pub tls_client_cert_file: Option<PathBuf>,
    pub tls_client_key_file: Option<PathBuf>,
    /// How long one command may take. A whole call, with a second try over a new connection, takes
    /// at most three times as long.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub command_timeout: Duration,
    /// Connections to the server. Each carries many commands at once, so few are enough.
    pub connections: usize,
}

/// A master watched by Sentinels. The servers are reached with TLS if the Sentinels are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sentinel {
    pub urls: Vec<ServerUrl>,
    /// The name of the master in the Sentinels' configuration.
    pub master: String,
    /// User and password of the Sentinels themselves, when they ask for one.
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
}

/// A Redis Cluster, found from any of its nodes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    pub urls: Vec<ServerUrl>,
}

/// The URL of one server. May hold a password that should not be there, until it is checked: so it
/// is never shown as it was written.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct ServerUrl(String);

impl From<String> for ServerUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

/// Bounds of [`Config::command_timeout`] and [`Config::connections`].
const COMMAND_TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(10);
const CONNECTIONS: std::ops::RangeInclusive<usize> = 1..=64;

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            sentinel: None,
            cluster: None,
            username: None,
            password_file: None,
            tls_ca_file: None,
            tls_client_cert_file: None,
            tls_client_key_file: None,
            command_timeout: Duration::from_millis(500),
            connections: 4,
        }
    }
}

impl Config {
    /// Which servers these are. No secrets.
    #[must_use]
    pub fn describe(&self) -> String {
        let urls: Vec<_> = self.urls().into_iter().map(ToString::to_string).collect();
        let urls = urls.join(", ");
        match &self.sentinel {
            Some(sentinel) => format!("Redis master {} by Sentinel ({urls})", sentinel.master),
            None if self.cluster.is_some() => format!("Redis Cluster ({urls})"),
            None => format!("Redis ({urls})"),
        }
    }

    /// The rules that the types do not hold.
    pub fn check(&self) -> Result<(), String> {
        let named = [self.url.is_some(), self.sentinel.is_some(), self.cluster.is_some()];
        if named.into_iter().filter(|named| *named).count() != 1 {
            return Err("redis needs exactly one of url, sentinel and cluster".into());
        }
        if self.sentinel.as_ref().is_some_and(|sentinel| sentinel.master.is_empty()) {
            return Err("redis.sentinel.master is empty".into());
        }
        let tls = self.check_urls()?;
        let has_tls_files = [&self.tls_ca_file, &self.tls_client_cert_file, &self.tls_client_key_file]
            .iter()
            .any(|file| file.is_some());
        if has_tls_files && !tls {
            return Err("redis.tls_* files are only used with rediss:// URLs".into());
        }
        if self.tls_client_cert_file.is_some() != self.tls_client_key_file.is_some() {
            return Err("redis.tls_client_cert_file and tls_client_key_file go together".into());
        }
        let sentinel_login = self.sentinel.as_ref().map(|sentinel| (&sentinel.username, &sentinel.password_file));
        let logins = [Some((&self.username, &self.password_file)), sentinel_login];
        if logins.into_iter().flatten().any(|(username, password)| username.is_some() && password.is_none()) {
            return Err("redis has a username without a password_file".into());
        }
        if !COMMAND_TIMEOUT.contains(&self.command_timeout) {
            return Err("redis.command_timeout must be between 10ms and 10s".into());
        }
        if !CONNECTIONS.contains(&self.connections) {
            return Err("redis.connections must be between 1 and 64".into());
        }
        Ok(())
    }

    /// Every URL is sound and all agree on TLS; returns whether it is used.
    fn check_urls(&self) -> Result<bool, String> {
        let urls = self.urls();
        let mut tls = urls.iter().map(|url| url.parse().map(|info| is_tls(&info)));
        let first = tls.next().ok_or("redis: no server is named in urls")??;
        for other in tls {
            if other? != first {
                return Err("redis: all urls must be redis:// or all rediss://".into());
            }
        }
        Ok(first)
    }

    /// The URLs, of whichever kind of service is named.
    #[must_use]
    pub fn urls(&self) -> Vec<&ServerUrl> {
        let sentinels = self.sentinel.iter().flat_map(|sentinel| &sentinel.urls);
        let nodes = self.cluster.iter().flat_map(|cluster| &cluster.urls);
        self.url.iter().chain(sentinels).chain(nodes).collect()
    }
}

#[must_use]
pub fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

impl ServerUrl {
    /// The address. Messages never repeat the URL, since it may hold a password.
    pub fn parse(&self) -> Result<ConnectionInfo, String> {
        const SHAPE: &str = "redis: a URL must look like redis://host:6379 or rediss://host:6379";
        if !self.0.starts_with("redis://") && !self.0.starts_with("rediss://") {
            return Err(SHAPE.into());
        }
        let info = self.0.as_str().into_connection_info().map_err(|_| SHAPE)?;
        if info.redis_settings().password().is_some() {
            return Err("redis: a URL must not hold a password: put it into a file and name that \
                        file in password_file"
                .into());
        }
        if info.redis_settings().username().is_some() {
            return Err("redis: a URL must not hold a user name: use username".into());
        }
        if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
            return Err("redis: #insecure is not supported: name the authority in tls_ca_file".into());
        }
        Ok(info)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parse() {
            Ok(info) => {
                let scheme = if is_tls(&info) { "rediss" } else { "redis" };
                write!(f, "{scheme}://{}", info.addr())
            }
            Err(_) => f.write_str("(unusable URL)"),
        }
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        toml::from_str::<Config>(text).map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn the_documented_forms_are_accepted() {
        for text in [
            "url = 'redis://127.0.0.1:6379'",
            "url = 'redis://[::1]:6379/3'\ncommand_timeout = '250ms'\nconnections = 8",
            "url = 'rediss://redis.internal:6380'\nusername = 'signer'\npassword_file = '/run/p'\n\
             tls_ca_file = '/ca'\ntls_client_cert_file = '/c'\ntls_client_key_file = '/k'",
            "sentinel = { urls = ['redis://a:26379', 'redis://b:26379'], master = 'mymaster' }",
            "cluster = { urls = ['rediss://a:6379', 'rediss://b:6379'] }",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        for (text, hint) in [
            ("", "exactly one of"),
            ("url = 'redis://a'\ncluster = { urls = ['redis://b'] }", "exactly one of"),
            ("url = 'http://a'", "must look like"),
            ("url = 'redis://'", "must look like"),
            ("url = 'rediss://a#insecure'", "tls_ca_file"),
            ("url = 'redis://bob@a'", "username"),
            ("url = 'redis://a'\nusername = 'bob'", "password_file"),
            ("url = 'redis://a'\ntls_ca_file = '/ca'", "rediss://"),
            ("url = 'rediss://a'\ntls_client_cert_file = '/c'", "go together"),
            ("url = 'redis://a'\ncommand_timeout = '1ms'", "command_timeout"),
            ("url = 'redis://a'\nconnections = 0", "connections"),
            ("url = 'redis://a'\npassword = 'x'", "unknown field"),
            ("cluster = { urls = [] }", "no server"),
            ("cluster = { urls = ['redis://a', 'rediss://b'] }", "all rediss"),
            ("sentinel = { urls = ['redis://a'], master = '' }", "master"),
        ] {
            let error = check(text).expect_err(text);
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_never_shown() {
        for url in ["redis://:hunter2@a:6379", "redis://bob:hunter2@a:6379", "http://:hunter2@a"] {
            let config: Config = toml::from_str(&format!("url = '{url}'")).unwrap();
            let error = config.check().unwrap_err();
            assert!(!format!("{error} {config:?}").contains("hunter2"));
        }
        let config: Config = toml::from_str("url = 'redis://:hunter2@a:6379'").unwrap();
        assert!(config.check().unwrap_err().contains("password_file"));
    }
}
