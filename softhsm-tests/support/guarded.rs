//! An appliance with every wire, and a client for each role.

use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;

use super::{
    appliance::{Appliance, BINARY},
    curl::Curl,
    eventually,
    pki::{Authority, Leaf, Provider},
    signer::first_key_here,
    softhsm::SoftHsm,
    tool,
};

/// The clients: one for each role, named after it, and a second for security.
pub const CLIENTS: [&str; 6] = ["producer", "operator", "security", "auditor", "metrics", "security-2"];

/// The appliance and what it stands on.
pub struct Guarded {
    pub appliance: Option<Appliance>,
    pub authority: Authority,
    pub provider: Provider,
    token: SoftHsm,
    home: TempDir,
    config: PathBuf,
    tls: String,
}

impl Guarded {
    pub fn new() -> Self {
        Self::with("operator", "", "")
    }

    /// On the Unix socket, this process is the client `local`; more lines for `[tls]`; more tables.
    pub fn with(local: &str, tls: &str, tables: &str) -> Self {
        let token = SoftHsm::new();
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::new(&home.path().join("ca"));
        let provider = Provider::new(&home.path().join("provider"));
        authority.issue("server", "DNS:localhost,IP:127.0.0.1", "30");
        for name in CLIENTS {
            authority.issue(name, &format!("DNS:{name}.test"), "30");
        }
        let directory = home.path().display();
        let tables = format!(
            r#"
[fleet]
single = true
[tls]
listen = "127.0.0.1:0"
certificate_file = "{directory}/ca/server.pem"
key_file = "{directory}/ca/server.key"
client_ca_file = "{directory}/ca/ca.pem"
client_crl_file = "{directory}/ca/ca.crl"
{tls}
[auth]
keys_file = "{directory}/keys.json"
jwt = {{ issuer = "https://id.test", audience = "verification-signer", jwks_file = "{directory}/provider/jwks.json" }}
{}
{tables}
"#,
            clients(local)
        );
        let config = token.config(home.path(), &first_key_here(&token, "", &tables));
        let http = format!("[http]\nunix_socket = \"{directory}/api.sock\"");
        fs::write(&config, fs::read_to_string(&config).unwrap().replace("[http]", &http)).unwrap();
        let mut guarded = Self { appliance: None, authority, provider, token, home, config, tls: String::new() };
        guarded.start();
        guarded
    }

    pub fn start(&mut self) {
        let appliance = Appliance::serve(&self.token, &self.config)
            .unwrap_or_else(|(status, log)| panic!("serve ended with {status}: {log}"));
        let log = appliance.log();
        let line = log.lines().find(|line| line.contains("listening with TLS")).unwrap();
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        self.tls = format!("https://{}", line["address"].as_str().unwrap());
        self.appliance = Some(appliance);
    }

    pub fn restart(&mut self) {
        self.appliance.take().unwrap().stop();
        self.start();
    }

    /// Ends it as a power cut would, and starts it again.
    pub fn crash(&mut self) {
        self.appliance.as_ref().unwrap().signal("KILL");
        self.appliance.take().unwrap().wait();
        self.start();
    }

    pub fn appliance(&self) -> &Appliance {
        self.appliance.as_ref().unwrap()
    }

    pub fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// Where the token's files are.
    pub fn tokens(&self) -> PathBuf {
        self.token.tokens()
    }

    /// Without TLS.
    pub fn plain(&self) -> Curl {
        Curl::at(&self.appliance().api)
    }

    pub fn tls(&self) -> Curl {
        Curl::at(&self.tls).with(&["--cacert", self.authority.certificate().to_str().unwrap()])
    }

    pub fn tls_address(&self) -> &str {
        self.tls.strip_prefix("https://").unwrap()
    }

    pub fn unix(&self) -> Curl {
        Curl::at("http://signer").with(&["--unix-socket", self.home.path().join("api.sock").to_str().unwrap()])
    }

    pub fn leaf(&self, name: &str) -> Leaf {
        let path = |extension: &str| self.home.path().join("ca").join(format!("{name}.{extension}"));
        Leaf { certificate: path("pem"), key: path("key") }
    }

    /// By its client certificate.
    pub fn certified(&self, name: &str) -> Curl {
        self.tls().certificate(&self.leaf(name))
    }

    /// A new bearer key, once the appliance takes it.
    pub fn key(&self, client: &str, more: &[&str]) -> String {
        let key = self.run_key(&[&["new", "--client", client][..], more].concat());
        let key = key.trim().to_owned();
        eventually("a new key is taken", || {
            (self.plain().bearer(&key).get("/api/v1/nowhere-to-be-found").status == 404
                && self.plain().bearer(&key).get("/api/v1/keys").status != 401)
                .then_some(())
        });
        key
    }

    /// `verification-signer key …`; its standard output.
    pub fn run_key(&self, arguments: &[&str]) -> String {
        let mut all = vec!["key", arguments[0], "--config", self.config.to_str().unwrap()];
        all.extend(&arguments[1..]);
        tool::run(BINARY, &all, &[])
    }

    /// `serve` with the configuration as it is now and a state of its own; it must refuse.
    pub fn serve_refused(&self) -> String {
        let text = fs::read_to_string(&self.config).unwrap();
        self.try_beside(&text).map(|_| ()).expect_err("serve must not come up")
    }

    /// One more appliance with this configuration and a state of its own.
    pub fn beside(&self, text: &str) -> Appliance {
        self.try_beside(text).unwrap_or_else(|log| panic!("{log}"))
    }

    fn try_beside(&self, text: &str) -> Result<Appliance, String> {
        let other = self.home.path().join("other");
        fs::create_dir_all(other.join("audit")).unwrap();
        let (here, there) = (self.home.path().display(), other.display());
        let mut text = text.to_owned();
        for name in ["state", "audit", "api.sock"] {
            text = text.replace(&format!("{here}/{name}\""), &format!("{there}/{name}\""));
        }
        fs::write(other.join("config.toml"), text).unwrap();
        Appliance::serve(&self.token, &other.join("config.toml")).map_err(|(_, log)| log)
    }

    /// A command with this configuration, whatever comes of it.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(BINARY);
        command.args([subcommand, "--config"]).arg(&self.config).envs(self.token.environment());
        command
    }
}

fn clients(local: &str) -> String {
    let uid = rustix::process::geteuid().as_raw();
    let row = |name: &str| {
        let role = name.trim_end_matches("-2");
        let scope = if role == "producer" {
            ", attestation_types = [\"email_verification\"], purposes = [\"receipt\"]"
        } else {
            ""
        };
        let unix = if name == local { format!(", unix_uids = [{uid}]") } else { String::new() };
        format!(
            "  {{ name = \"{name}\", roles = [\"{role}\"], certificate_names = [\"dns:{name}.test\"], jwt_subjects = [\"{name}\"]{scope}{unix} }},\n"
        )
    };
    let everything = "  { name = \"everything\", roles = [\"producer\", \"operator\", \"security\", \"auditor\", \"metrics\"], \
         attestation_types = [\"*\"], purposes = [\"*\"], keys = [\"*\"] },\n";
    format!("clients = [\n{}{everything}]", CLIENTS.iter().map(|name| row(name)).collect::<String>())
}
