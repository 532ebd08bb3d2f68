//! An appliance to be measured: the configured one, with a name, keys and files of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use toml::{Table, Value};

use super::Failure;
use crate::{
    config::Config,
    key::SignerId,
    token::{self, PinDesk, Token},
};

/// What its names on the token end with. Whatever has such a name is destroyed, so no appliance has it.
const SUFFIX: &str = "-throwaway-bench";

/// The name that the measured appliance has instead of `id`.
pub(super) fn signer(id: &SignerId) -> Result<SignerId, Failure> {
    let name: String = id.as_str().chars().take(63 - SUFFIX.len()).collect();
    SignerId::parse(&format!("{name}{SUFFIX}")).map_err(|_| Failure::Name)
}

/// Where its files are, beside those of the appliance: on the same disk. Removed at the end.
pub(super) struct Place {
    directory: PathBuf,
    signer: SignerId,
    token_serial: String,
}

impl Place {
    pub fn make(config: &Config, chosen: Option<&Path>, token_serial: String) -> Result<Self, Failure> {
        let beside = chosen.or_else(|| config.audit.directory.parent()).unwrap_or(Path::new("/"));
        let directory = beside.join(format!("verification-signer-bench-{}", std::process::id()));
        let cannot = |source| Failure::Place { path: directory.clone(), source };
        crate::durable::private_directory(&directory).map_err(cannot)?;
        for name in ["audit", "state"] {
            crate::durable::private_directory(&directory.join(name)).map_err(cannot)?;
        }
        let signer = signer(&config.signer.id)?;
        Ok(Self { directory, signer, token_serial })
    }

    /// The configuration file with what must be another for the measurement.
    fn configuration(&self, text: &str) -> Result<String, Failure> {
        let mut tables: Table = text.parse().map_err(|_| Failure::Name)?;
        // Loopback, plain and open; the files of the appliance are not touched, and its Redis keys neither:
        // they carry the signer's name.
        for table in ["tls", "auth", "approvals", "standby", "failover", "limits", "merkle"] {
            tables.remove(table);
        }
        let path = |name: &str| Value::from(self.directory.join(name).to_string_lossy().into_owned());
        let settings = [
            ("signer", "id", Value::from(self.signer.to_string())),
            ("state", "directory", path("state")),
            ("audit", "directory", path("audit")),
            ("ledger", "store", "file".into()),
            ("ledger", "path", path("ledger")),
            ("fleet", "single", true.into()),
            ("limits", "enabled", false.into()),
            ("nonce", "outstanding_per_issuer", 2_000_000.into()),
            ("nonce", "capacity", 2_000_000.into()),
            ("http", "listen", "127.0.0.1:0".into()),
            ("metrics", "listen", "127.0.0.1:0".into()),
            ("key_policy", "first_key_on_token_serial", self.token_serial.clone().into()),
            ("log", "level", "info".into()),
            ("log", "format", "json".into()),
        ];
        for (table, key, value) in settings {
            let table = tables.entry(table).or_insert_with(|| Value::Table(Table::new()));
            table.as_table_mut().ok_or(Failure::Name)?.insert(key.into(), value);
        }
        if let Some(http) = tables.get_mut("http").and_then(Value::as_table_mut) {
            http.remove("unix_socket");
        }
        Ok(tables.to_string())
    }

    /// Starts it, and waits until it serves.
    pub fn serve(&self, text: &str) -> Result<Serving, Failure> {
        let file = self.directory.join("config.toml");
        let configuration = self.configuration(text)?;
        fs::write(&file, configuration).map_err(|source| Failure::Place { path: file.clone(), source })?;
        let mut serve = Command::new("/proc/self/exe");
        serve.arg("serve").arg("--config").arg(&file).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = serve.spawn().map_err(|source| Failure::Place { path: file, source })?;
        let mut lines = BufReader::new(child.stderr.take().expect("it is a pipe")).lines();
        let mut said = String::new();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            said = line;
            address_in(&said)
        });
        // What it says from now on has to go somewhere.
        thread::spawn(move || lines.for_each(drop));
        let serving = Serving { child, api: format!("http://{}", address.as_deref().unwrap_or_default()) };
        if address.is_some() { Ok(serving) } else { Err(Failure::NotServed { said }) }
    }

    /// Takes its keys off the token: those of a measurement that was cut short as well.
    pub async fn clear(&self, config: &Config, pins: &PinDesk) -> Result<(), token::Error> {
        let token = Token::open(&config.token, pins.clone())?;
        // Nothing else begins so: a key of the appliance is `<signer>:<number>`.
        for prefix in [format!("{}:", self.signer), token::audit_label_prefix(&self.signer)] {
            for key in token.key_objects(prefix.clone()).await? {
                token.destroy_leftovers(key.object_id, prefix.clone()).await?;
            }
        }
        token.close()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays is in a directory that says what it is.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// `ready` of the log, with where the API listens.
fn address_in(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line["message"] == "ready").then(|| line["api"].as_str().map(str::to_owned))?
}

/// The appliance that runs. It ends with this value.
pub(super) struct Serving {
    child: Child,
    pub api: String,
}

impl Serving {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // It fails when it has ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
