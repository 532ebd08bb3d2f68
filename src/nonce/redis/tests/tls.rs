//! Passwords, users and certificates.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use deadpool_redis::redis;

use super::server::RedisServer;
use super::*;

const SECRET: &str = "correct-horse-battery";

fn secret_file(directory: &Path, content: &str) -> PathBuf {
    let path = directory.join(format!("secret-{}", content.len()));
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

async fn connect(config: &Config) -> Result<RedisStore, Box<dyn std::error::Error>> {
    super::connect(config, contract::config()).await
}

/// The rights that the documentation asks for.
const ACL: &str = "~virtengine:veid:* resetchannels -@all +evalsha +script|load +info +time +exists +get +set \
                   +sadd +smembers +hget +hset +hmget +hgetall +hincrby +zadd +zrem +zcard +zscore +zincrby +zrange \
                   +zremrangebyrank +pexpire +unlink +del";

#[tokio::test]
async fn a_user_with_the_documented_rights_can_do_everything() {
    let rights = format!("on >{SECRET} {ACL}");
    let server = RedisServer::start(&[]);
    let words: Vec<_> = ["ACL", "SETUSER", "signer"].into_iter().chain(rights.split_whitespace()).collect();
    server.command::<()>(&words);
    let password_file = secret_file(server.directory.path(), SECRET);
    let config = Config { username: Some("signer".into()), password_file: Some(password_file), ..config(server.url()) };
    let store = connect(&config).await.unwrap();
    let (nonce, reopened) = (one(&store).await, one(&store).await);
    fresh(&store, &nonce).await;
    let spent = fresh(&store, &reopened).await;
    store.reopen(spent).await.unwrap();
    store.ping().await.unwrap();
    store.stats().await.unwrap();
    one(&store).await;
    assert_eq!(store.cleanup(now().plus_seconds(3601)).await.unwrap().total(), 3);
    let denied: Vec<String> = server
        .command::<Vec<Vec<redis::Value>>>(&["ACL", "LOG"])
        .into_iter()
        .map(|entry| format!("{entry:?}"))
        .collect();
    assert_eq!(denied, Vec::<String>::new());
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let server = RedisServer::start(&["--requirepass", "something else"]);
    let password_file = secret_file(server.directory.path(), SECRET);
    let config = Config { password_file: Some(password_file.clone()), ..config(server.url()) };
    let error = connect(&config).await.err().expect("the password is wrong");
    assert!(!format!("{error} {error:?} {config:?}").contains(SECRET));
    std::fs::write(&password_file, "something else").unwrap();
    one(&connect(&config).await.unwrap()).await;
    // Without one, and with one that others can read.
    assert!(connect(&Config { password_file: None, ..config.clone() }).await.is_err());
    std::fs::set_permissions(&password_file, Permissions::from_mode(0o644)).unwrap();
    let error = connect(&config).await.err().expect("the file is too open");
    assert!(error.to_string().contains("can be read by others"), "{error}");
}

/// An authority, a server certificate for 127.0.0.1 and a client certificate.
fn certificates(directory: &Path) {
    let script = "set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority \
            -keyout ca.key -out ca.pem
        for name in server client; do
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
            printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > $name.ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem
        done
        chmod 600 *.key";
    let made = Command::new("sh").args(["-c", script]).current_dir(directory).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A directory with certificates, and what servers and clients are told of them.
struct Pki {
    directory: tempfile::TempDir,
    tls_port: u16,
}

impl Pki {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        certificates(directory.path());
        Self { directory, tls_port: server::free_port() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Name and value of each setting.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.file(name).to_str().unwrap().to_owned();
        vec![
            ("tls-port", self.tls_port.to_string()),
            ("tls-ca-cert-file", path("ca.pem")),
            ("tls-cert-file", path("server.pem")),
            ("tls-key-file", path("server.key")),
        ]
    }

    fn server(&self, more: &[&str]) -> RedisServer {
        let settings: Vec<_> =
            self.settings().into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect();
        let settings: Vec<_> = settings.iter().map(String::as_str).chain(more.iter().copied()).collect();
        RedisServer::start(&settings)
    }

    fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.tls_port)
    }

    /// With all that a client needs to be let in.
    fn config(&self) -> Config {
        Config {
            tls_ca_file: Some(self.file("ca.pem")),
            tls_client_cert_file: Some(self.file("client.pem")),
            tls_client_key_file: Some(self.file("client.key")),
            command_timeout: Duration::from_secs(3),
            ..Config::default()
        }
    }
}

async fn works(config: &Config) {
    let store = connect(config).await.unwrap_or_else(|error| panic!("{error}"));
    let nonce = one(&store).await;
    fresh(&store, &nonce).await;
}

#[tokio::test]
async fn a_server_behind_tls_is_checked_and_asks_for_our_certificate() {
    let pki = Pki::new();
    let _server = pki.server(&[]);
    let config = Config { url: Some(pki.url().into()), ..pki.config() };
    works(&config).await;
    let without_certificate = Config { tls_client_cert_file: None, tls_client_key_file: None, ..config.clone() };
    assert!(connect(&without_certificate).await.is_err());
    let unknown_authority = Config { tls_ca_file: Some(pki.file("client.pem")), ..config.clone() };
    assert!(connect(&unknown_authority).await.is_err());
    let not_a_certificate = Config { tls_ca_file: Some(pki.file("ca.key")), ..config };
    assert!(connect(&not_a_certificate).await.is_err());
}

#[tokio::test]
async fn a_cluster_behind_tls_is_reached() {
    let pki = Pki::new();
    let node = pki.server(&["--cluster-enabled", "yes", "--tls-cluster", "yes"]);
    node.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    server::until("the cluster is up", || node.command::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    works(&Config { cluster: Some(Cluster { urls: vec![pki.url().into()] }), ..pki.config() }).await;
}

#[tokio::test]
async fn sentinels_and_their_master_are_reached_with_tls_and_passwords_of_their_own() {
    let (pki, sentinel_port) = (Pki::new(), server::free_port());
    let master = pki.server(&[]);
    master.command::<()>(&["ACL", "SETUSER", "signer", "on", &format!(">{SECRET}"), "~*", "+@all"]);
    let settings: Vec<_> = pki
        .settings()
        .into_iter()
        .map(|(name, value)| match name {
            "tls-port" => format!("{name} {sentinel_port}\n"),
            _ => format!("{name} {value}\n"),
        })
        .collect();
    let watched = format!("{}tls-replication yes\nsentinel monitor m 127.0.0.1 {} 1", settings.concat(), pki.tls_port);
    let sentinel = RedisServer::sentinel(&watched);
    sentinel.command::<()>(&["ACL", "SETUSER", "watcher", "on", ">another", "+@all"]);
    let directory = pki.directory.path();
    let credentials = |password: &str| Sentinel {
        urls: vec![format!("rediss://127.0.0.1:{sentinel_port}").into()],
        master: "m".into(),
        username: Some("watcher".into()),
        password_file: Some(secret_file(directory, password)),
    };
    let config = Config {
        sentinel: Some(credentials("another")),
        username: Some("signer".into()),
        password_file: Some(secret_file(directory, SECRET)),
        ..pki.config()
    };
    works(&config).await;
    let error = connect(&Config { sentinel: Some(credentials("wrong")), ..config }).await.err().expect("wrong");
    assert!(error.to_string().contains("Sentinel"), "{error}");
}
