//! Passwords, users and certificates.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::server::RedisServer;
use super::*;

const SECRET: &str = "correct-horse-battery";

fn secret_file(directory: &Path, content: &str) -> PathBuf {
    let path = directory.join("secret");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

async fn connect(config: &Config) -> Result<RedisStore, ConnectError> {
    RedisStore::connect(config, contract::config(), &signer()).await
}

/// The rights that the documentation asks for.
const ACL: &str = "~virtengine:veid:* resetchannels -@all +evalsha +script|load +info +time +exists +hget +hset \
                   +hmget +hgetall +hincrby +hdel +zadd +zrem +zcard +zrange +zremrangebyrank +pexpire +unlink +del";

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
    assert_eq!(store.cleanup(now().plus_seconds(3601)).await.unwrap(), 3);
    let denied: Vec<String> = server
        .command::<Vec<Vec<redis::Value>>>(&["ACL", "LOG"])
        .into_iter()
        .map(|entry| format!("{entry:?}"))
        .collect();
    assert_eq!(denied, Vec::<String>::new());
}

use deadpool_redis::redis;

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

#[tokio::test]
async fn a_server_behind_tls_is_checked_and_asks_for_our_certificate() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let file = |name: &str| directory.path().join(name);
    let path = |name: &str| file(name).to_str().unwrap().to_owned();
    let (ca, certificate, key) = (path("ca.pem"), path("server.pem"), path("server.key"));
    let tls_port = server::free_port().to_string();
    let _server = RedisServer::start(&[
        "--tls-port",
        &tls_port,
        "--tls-ca-cert-file",
        &ca,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
    ]);
    let config = Config {
        tls_ca_file: Some(file("ca.pem")),
        tls_client_cert_file: Some(file("client.pem")),
        tls_client_key_file: Some(file("client.key")),
        ..config(format!("rediss://127.0.0.1:{tls_port}"))
    };
    let store = connect(&config).await.unwrap();
    let nonce = one(&store).await;
    fresh(&store, &nonce).await;
    let without_certificate = Config { tls_client_cert_file: None, tls_client_key_file: None, ..config.clone() };
    assert!(connect(&without_certificate).await.is_err());
    let unknown_authority = Config { tls_ca_file: Some(file("client.pem")), ..config.clone() };
    assert!(connect(&unknown_authority).await.is_err());
    let not_a_certificate = Config { tls_ca_file: Some(file("ca.key")), ..config };
    assert!(connect(&not_a_certificate).await.is_err());
}
