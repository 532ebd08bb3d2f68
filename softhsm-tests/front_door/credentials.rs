//! Good credentials and bad ones: certificates, tokens, bearer keys.

use serde_json::{Value, json};

use crate::support::{
    curl::Curl,
    eventually,
    guarded::Guarded,
    pki::{AUDIENCE, Authority, ISSUER, Leaf, claims, unsigned},
};

/// The status of a request that every member may make.
fn status(curl: &Curl) -> u16 {
    curl.get("/api/v1/keys").status
}

/// Turned away in the handshake: curl fails, and no HTTP was spoken.
fn refused_in_handshake(curl: &Curl) -> bool {
    match curl.send("GET", "/api/v1/keys", None) {
        Ok(answer) => panic!("{} {}", answer.status, answer.text()),
        // SSL connect error, failure when receiving (the alert of TLS 1.3 comes late), SSL peer.
        Err((code, message)) => matches!(code, 35 | 55 | 56) || panic!("{code} {message}"),
    }
}

#[test]
fn certificates_that_are_expired_revoked_or_of_another_authority_end_in_the_handshake() {
    let guarded = Guarded::new();
    assert_eq!(status(&guarded.certified("auditor")), 200);

    let other = Authority::new(&guarded.home().join("other"));
    let stranger = other.issue("auditor", "DNS:auditor.test", "30");
    assert!(refused_in_handshake(&guarded.tls().certificate(&stranger)));

    let expired = guarded.authority.issue("expired", "DNS:auditor.test", "0");
    // Within its last second it is good.
    eventually("it has expired", || {
        guarded.tls().certificate(&expired).send("GET", "/api/v1/keys", None).is_err().then_some(())
    });
    assert!(refused_in_handshake(&guarded.tls().certificate(&expired)));

    // Good, and of nobody.
    let unknown = guarded.authority.issue("unknown", "DNS:unknown.test", "30");
    let answer = guarded.tls().certificate(&unknown).get("/api/v1/keys");
    assert_eq!((answer.status, &*answer.problem()), (401, "not-authenticated"), "{}", answer.text());
    // A common name is no name.
    let common = guarded.authority.issue("auditor.test", "DNS:unknown.test", "30");
    assert_eq!(status(&guarded.tls().certificate(&common)), 401);
    // Two names of two clients.
    let both = guarded.authority.issue("both", "DNS:auditor.test,DNS:security.test", "30");
    assert_eq!(status(&guarded.tls().certificate(&both)), 401);

    guarded.authority.revoke(&guarded.leaf("auditor"));
    eventually("the revocation is read", || {
        guarded.certified("auditor").send("GET", "/api/v1/keys", None).is_err().then_some(())
    });
    assert!(refused_in_handshake(&guarded.certified("auditor")));
    assert_eq!(status(&guarded.certified("operator")), 200);
    assert!(!guarded.appliance().audit_events("config_changed").is_empty());
}

#[test]
fn a_revocation_reaches_connections_that_are_open_already() {
    let guarded = Guarded::new();
    let mut open = Keeper::open(&guarded, "auditor");
    let mut neighbour = Keeper::open(&guarded, "operator");
    assert_eq!((open.get(), neighbour.get()), (200, 200));
    guarded.authority.revoke(&guarded.leaf("auditor"));
    // Asked more often than an idle connection is closed.
    eventually("the open connection is refused", || {
        assert_eq!(neighbour.get(), 200);
        (open.get() == 401).then_some(())
    });
    assert_eq!(neighbour.get(), 200);
}

/// One TLS connection, kept: openssl's client with a pipe on either side.
struct Keeper {
    child: std::process::Child,
    output: std::io::BufReader<std::process::ChildStdout>,
}

impl Keeper {
    fn open(guarded: &Guarded, name: &str) -> Self {
        let leaf = guarded.leaf(name);
        let mut child = std::process::Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", guarded.tls_address(), "-CAfile"])
            .arg(guarded.authority.certificate())
            .arg("-cert")
            .arg(leaf.certificate)
            .arg("-key")
            .arg(leaf.key)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn get(&mut self) -> u16 {
        use std::io::{BufRead, Read, Write};
        let request = b"GET /api/v1/keys HTTP/1.1\r\nhost: signer\r\n\r\n";
        self.child.stdin.as_mut().unwrap().write_all(request).unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the connection ended");
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(rest) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = rest.trim().parse().unwrap();
            } else if line.trim().is_empty() {
                break;
            }
        }
        self.output.read_exact(&mut vec![0; length]).unwrap();
        status
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_overdue_list_lets_nobody_in_and_a_missing_certificate_only_where_it_may_be_missing() {
    let guarded = Guarded::with("none", "require_client_certificate = true", "");
    assert_eq!(status(&guarded.certified("auditor")), 200);
    assert!(refused_in_handshake(&guarded.tls()));
    assert!(refused_in_handshake(&guarded.tls().bearer(&guarded.provider.token("auditor"))));
    guarded.authority.write_crl_for_seconds("1");
    eventually("the overdue list is enforced", || {
        guarded.certified("auditor").send("GET", "/api/v1/keys", None).is_err().then_some(())
    });
    assert!(refused_in_handshake(&guarded.certified("auditor")));
    guarded.authority.write_crl("30");
    eventually("the new list is read", || guarded.certified("auditor").send("GET", "/api/v1/keys", None).ok());
}

#[test]
fn only_tls_1_2_and_1_3_are_spoken() {
    let guarded = Guarded::new();
    for version in ["1.2", "1.3"] {
        let only = guarded.certified("auditor").with(&["--tlsv1.2", "--tls-max", version]);
        assert_eq!(status(&only), 200, "TLS {version}");
    }
    let old = guarded.certified("auditor").with(&["--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT:@SECLEVEL=0"]);
    assert!(old.send("GET", "/api/v1/keys", None).is_err());
}

#[test]
fn tokens_are_taken_only_when_everything_about_them_is_right() {
    let guarded = Guarded::new();
    let provider = &guarded.provider;
    let (rs256, es256) = (json!({ "alg": "RS256", "kid": "rsa" }), json!({ "alg": "ES256", "kid": "ec" }));
    let good = claims("auditor");
    for header in [&rs256, &es256] {
        assert_eq!(status(&guarded.tls().bearer(&provider.sign(header, &good))), 200, "{header}");
    }
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed
    };
    let without = |name: &str| {
        let mut changed = good.clone();
        changed.as_object_mut().unwrap().remove(name);
        changed
    };
    let now = good["iat"].as_i64().unwrap();
    let signed = provider.sign(&rs256, &good);
    let (head, signature) = signed.rsplit_once('.').unwrap();
    let payload = head.split_once('.').unwrap().1;
    // HMAC with the RSA public key as the secret: what a verifier does that asks the token for the algorithm.
    let confused = |header: Value| {
        let message = unsigned(&header, &good);
        format!("{message}.{}", hmac_sha256(&provider.rsa_public_pem(), &message))
    };
    let shared = |message: String| format!("{message}.{}", hmac_sha256(b"a secret that everybody knows", &message));
    let bad = [
        ("none", format!("{}.", unsigned(&json!({ "alg": "none" }), &good))),
        ("none with a key", format!("{}.", unsigned(&json!({ "alg": "none", "kid": "rsa" }), &good))),
        ("None", format!("{}.{signature}", unsigned(&json!({ "alg": "nOnE", "kid": "rsa" }), &good))),
        ("HS256 with the public key", confused(json!({ "alg": "HS256", "kid": "rsa" }))),
        ("HS256 with the public key, of the other", confused(json!({ "alg": "HS256", "kid": "ec" }))),
        ("HS256 with a key of the set", shared(unsigned(&json!({ "alg": "HS256", "kid": "shared" }), &good))),
        ("the algorithm of another key", provider.sign(&json!({ "alg": "RS256", "kid": "ec" }), &good)),
        ("another algorithm of the key", provider.sign(&json!({ "alg": "RS512", "kid": "rsa" }), &good)),
        ("PSS for PKCS1", provider.sign(&json!({ "alg": "PS256", "kid": "rsa" }), &good)),
        ("an unknown key", provider.sign(&json!({ "alg": "RS256", "kid": "x" }), &good)),
        ("no key named, of several", provider.sign(&json!({ "alg": "RS256" }), &good)),
        (
            "a key inside",
            provider.sign(&json!({ "alg": "RS256", "kid": "x", "jwk": { "kty": "oct", "k": "AA" } }), &good),
        ),
        (
            "a critical extension",
            provider.sign(&json!({ "alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": false }), &good),
        ),
        ("expired", provider.sign(&rs256, &with("exp", json!(now - 3600)))),
        ("never expiring", provider.sign(&rs256, &without("exp"))),
        ("an end that is a text", provider.sign(&rs256, &with("exp", json!("9999999999")))),
        ("an end beyond numbers", provider.sign(&rs256, &with("exp", json!(-1)))),
        ("not yet", provider.sign(&rs256, &with("nbf", json!(now + 3600)))),
        ("another issuer", provider.sign(&rs256, &with("iss", json!("https://id.test.evil")))),
        ("no issuer", provider.sign(&rs256, &without("iss"))),
        ("another audience", provider.sign(&rs256, &with("aud", json!("another service")))),
        ("no audience", provider.sign(&rs256, &without("aud"))),
        ("no subject", provider.sign(&rs256, &without("sub"))),
        ("a subject of another kind", provider.sign(&rs256, &with("sub", json!(["auditor"])))),
        ("nobody", provider.sign(&rs256, &with("sub", json!("nobody")))),
        ("changed claims", format!("{}.{signature}", unsigned(&rs256, &with("sub", json!("security"))))),
        ("no signature", head.to_owned()),
        ("an empty signature", format!("{head}.")),
        ("half a signature", format!("{head}.{}", &signature[..100])),
        ("four parts", format!("{signed}.x")),
        ("no base64", format!("!!.{payload}.{signature}")),
        ("long", format!("{signed}{}", "A".repeat(9000))),
        ("empty", String::new()),
    ];
    for (what, token) in bad {
        let answer = guarded.tls().bearer(&token).get("/api/v1/keys");
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        assert_eq!(answer.problem(), "not-authenticated", "{what}");
        // A good certificate does not make up for it.
        assert_eq!(status(&guarded.certified("security").bearer(&token)), 401, "{what}");
    }
    assert_eq!(status(&guarded.tls().bearer(&provider.sign(&rs256, &with("aud", json!(["x", AUDIENCE]))))), 200);
    assert_eq!(good["iss"], ISSUER);
    let log = guarded.appliance().log();
    assert!(!log.contains(signature) && !log.contains(payload), "a token is in the log");
}

#[test]
fn keys_of_the_provider_are_fetched_where_its_certificate_is_good() {
    let guarded = Guarded::new();
    let token = guarded.provider.token("auditor");
    let refetched = |authority: &Authority| {
        let server = authority.issue("provider", "DNS:localhost", "30");
        let served = Served::files(&guarded.home().join("provider"), &server);
        let (ca, port) = (guarded.authority.certificate(), served.port);
        let url = format!("jwks_url = \"https://localhost:{port}/jwks.json\", jwks_ca_file = \"{}\"", ca.display());
        let config = std::fs::read_to_string(guarded.home().join("config.toml")).unwrap();
        let (before, rest) = config.split_once("jwks_file = \"").unwrap();
        let (_, after) = rest.split_once('"').unwrap();
        (served, format!("{before}{url}{after}"))
    };
    let (served, text) = refetched(&guarded.authority);
    let fetching = guarded.beside(&text);
    eventually("the keys are fetched", || (status(&Curl::at(&fetching.api).bearer(&token)) == 200).then_some(()));
    // The provider may go away: its keys stay.
    drop(served);
    assert_eq!(status(&Curl::at(&fetching.api).bearer(&token)), 200);
    drop(fetching);

    let (_served, text) = refetched(&Authority::new(&guarded.home().join("other")));
    let fetching = guarded.beside(&text);
    eventually("the certificate is refused", || {
        fetching.log().contains("keys of the identity provider: https").then_some(())
    });
    assert_eq!(status(&Curl::at(&fetching.api).bearer(&token)), 401);
}

#[test]
fn a_provider_that_does_not_answer_keeps_no_file_waiting() {
    use std::{io::Read, net::TcpListener};
    let guarded = Guarded::new();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("jwks_url = \"https://127.0.0.1:{}/jwks.json\"", mute.local_addr().unwrap().port());
    let config = std::fs::read_to_string(guarded.home().join("config.toml")).unwrap();
    let (before, rest) = config.split_once("jwks_file = \"").unwrap();
    let waiting = guarded.beside(&format!("{before}{url}{}", rest.split_once('"').unwrap().1));
    // Each fetch gives up after a while and is tried again: one of them must still wait when a key is taken.
    let taken_meanwhile = ["auditor", "operator", "security"].into_iter().any(|client| {
        let (mut fetch, _) = mute.accept().unwrap();
        let key = guarded.run_key(&["new", "--client", client]).trim().to_owned();
        eventually("a new key is taken", || (status(&Curl::at(&waiting.api).bearer(&key)) == 200).then_some(()));
        fetch.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        while matches!(fetch.read(&mut buffer), Ok(read) if read > 0) {}
        fetch.read(&mut buffer).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    });
    assert!(taken_meanwhile, "every fetch had ended before the key was taken");
}

/// openssl as a server of files.
struct Served {
    child: std::process::Child,
    port: u16,
}

impl Served {
    fn files(directory: &std::path::Path, leaf: &Leaf) -> Self {
        use std::io::{BufRead, BufReader};
        let mut child = std::process::Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-WWW", "-cert"])
            .arg(&leaf.certificate)
            .arg("-key")
            .arg(&leaf.key)
            .current_dir(directory)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| line.unwrap().strip_prefix("ACCEPT 127.0.0.1:").map(ToOwned::to_owned));
        let port = line.unwrap().parse().unwrap();
        // What else it says goes nowhere.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hmac_sha256(key: &[u8], message: &str) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(message.as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

#[test]
fn bearer_keys_are_taken_until_they_end_and_two_at_a_time() {
    let guarded = Guarded::new();
    let first = guarded.key("auditor", &[]);
    let second = guarded.key("auditor", &["--valid-for", "1h"]);
    let id = |key: &str| key.split('_').nth(1).unwrap().to_owned();
    let with = |key: &str| guarded.plain().bearer(key);
    assert_eq!((status(&with(&first)), status(&with(&second))), (200, 200));
    let third = guarded.command("key").args(["--help"]).output().unwrap();
    assert!(!third.status.success(), "--config is no argument of key itself");
    let listed = guarded.run_key(&["list"]);
    assert!(listed.contains(&id(&first)) && listed.contains(&id(&second)) && !listed.contains("vsk_"), "{listed}");

    let mixed = first.replace(&id(&first), &id(&second));
    let mut other = first.clone();
    other.replace_range(other.len() - 1.., if first.ends_with('0') { "1" } else { "0" });
    let cut = first[..first.len() - 1].to_owned();
    for (what, key) in [("of another", &mixed), ("changed", &other), ("cut", &cut), ("prefix", &"vsk_".to_owned())] {
        let answer = with(key).get("/api/v1/keys");
        assert_eq!((answer.status, &*answer.problem()), (401, "not-authenticated"), "{what}");
    }
    for header in [
        format!("Authorization: {first}"),
        format!("Authorization: Basic {first}"),
        format!("Authorization: Bearer  {first}"),
        format!("Authorization: Bearer {first}, Bearer {first}"),
        format!("Authorization: Bearer {first} x"),
        "Authorization: Bearer".to_owned(),
    ] {
        assert_eq!(status(&guarded.plain().header(&header)), 401, "{header}");
    }
    assert_eq!(status(&with(&first).bearer(&first)), 401, "two headers");
    assert_eq!(status(&guarded.plain().header(&format!("authorization: bEARER {first}"))), 200);

    guarded.run_key(&["revoke", &id(&first)]);
    eventually("the revoked key is refused", || (status(&with(&first)) == 401).then_some(()));
    assert_eq!(status(&with(&second)), 200);
    let short = guarded.key("auditor", &["--valid-for", "2s"]);
    eventually("the key expires", || {
        let answer = with(&short).get("/api/v1/keys");
        (answer.status == 401 && answer.text().contains("expired")).then_some(())
    });

    let secrets = [&first, &second, &short].map(|key| key.rsplit_once('_').unwrap().1.to_owned());
    let (log, trail) = (guarded.appliance().log(), guarded.appliance().audit_log());
    let file = std::fs::read_to_string(guarded.home().join("keys.json")).unwrap();
    for secret in secrets {
        assert!(![&log, &trail, &file].iter().any(|text| text.contains(&secret)), "a key is where it must not be");
    }
}

#[test]
fn a_damaged_key_file_keeps_what_was_read_before_and_hang_up_reads_it_again() {
    let guarded = Guarded::new();
    let key = guarded.key("auditor", &[]);
    let path = guarded.home().join("keys.json");
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, b"{").unwrap();
    eventually("the damage is reported", || {
        guarded.appliance().log().contains("cannot be read: what was read before stays in use").then_some(())
    });
    assert_eq!(status(&guarded.plain().bearer(&key)), 200);
    std::fs::write(&path, good).unwrap();
    let reloads = || guarded.appliance().audit_events("config_changed").len();
    eventually("the mended file is read", || (reloads() > 0).then_some(()));
    let before = reloads();
    guarded.appliance().signal("HUP");
    eventually("everything is read again", || (reloads() >= before + 3).then_some(()));
    assert_eq!(status(&guarded.plain().bearer(&key)), 200);
}

#[test]
fn what_would_let_strangers_in_does_not_start() {
    let guarded = Guarded::new();
    let config = guarded.home().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let plain = text.split("[tls]").next().unwrap().to_owned();
    let auth = format!("[auth]{}", text.split("[auth]").nth(1).unwrap());
    let tls = format!("[tls]{}", text.split("[tls]").nth(1).unwrap().split("[auth]").next().unwrap());
    let no_clients = tls.replace("client_ca_file", "# ").replace("client_crl_file", "# ");
    let everywhere = |text: &str| text.replacen("listen = \"127.0.0.1:0\"", "listen = \"0.0.0.0:0\"", 1);
    for (text, says) in [
        (everywhere(&plain), "http.allow_unauthenticated_network_access = true"),
        (format!("{}{auth}", everywhere(&plain)), "http.allow_unauthenticated_network_access = true"),
        (format!("{plain}{}", everywhere(&no_clients)), "Say who may do what in [auth]"),
        (format!("{plain}{tls}"), "tls.client_ca_file needs [auth]"),
        (format!("{plain}[auth]\n"), "auth.clients names nobody"),
        (
            format!("{plain}[auth]\nclients = [{{ name = \"abuse-score\", roles = [\"auditor\"] }}]\n"),
            "none of the program's own",
        ),
        (
            format!("{plain}[metrics]\n")
                .replacen("[metrics]\nlisten", "[metrics]\nauthenticate = true\nlisten", 1)
                .replace("[metrics]\n[", "["),
            "metrics.authenticate needs [auth]",
        ),
        (format!("{plain}{tls}{auth}").replace("server.key", "security.key"), "server.pem and"),
        (format!("{plain}{tls}{auth}").replace("server.key", "server.pem"), "can be read by others"),
        (format!("{plain}{tls}{auth}").replace("ca/ca.crl", "ca/ca.pem"), "no revocation list"),
    ] {
        let text = text.strip_suffix("[metrics]\n").unwrap_or(&text);
        std::fs::write(&config, text).unwrap();
        let output = guarded.command("check").output().unwrap();
        let output = crate::support::tool::text(&output.stdout) + &crate::support::tool::text(&output.stderr);
        let output = if output.contains(says) {
            output
        } else {
            // What `check` does not look at, `serve` does. (The appliance of this test holds the state.)
            let served = guarded.serve_refused();
            output + &served
        };
        assert!(output.contains(says), "{says}: {output}");
    }
}

#[test]
fn metrics_may_ask_for_their_role() {
    let guarded = Guarded::with("none", "", "");
    let open = Curl::at(&guarded.appliance().metrics);
    assert_eq!(open.get("/metrics").status, 200);
    let mut guarded = guarded;
    let config = guarded.home().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[metrics]\n", "[metrics]\nauthenticate = true\n")).unwrap();
    guarded.restart();
    let metrics = Curl::at(&guarded.appliance().metrics);
    assert_eq!(metrics.get("/metrics").status, 401);
    assert_eq!(metrics.clone().bearer(&guarded.provider.token("auditor")).get("/metrics").status, 403);
    assert_eq!(metrics.clone().bearer(&guarded.provider.token("metrics")).get("/metrics").status, 200);
    assert_eq!(metrics.get("/api/v1/keys").status, 404);
}
