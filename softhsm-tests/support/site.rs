//! A token with an appliance's directories beside it: where `serve`, `check` and `init` run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{
    appliance::{Appliance, BINARY},
    faults::Faults,
    pkcs11_tool::Pkcs11Tool,
    softhsm::{MODULE, SoftHsm},
    spy::Spy,
    tool,
};

/// A place where the binary runs.
pub struct Site {
    pub token: SoftHsm,
    pub home: TempDir,
    environment: Vec<(&'static str, PathBuf)>,
}

/// A run that ended by itself.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    /// Standard output and standard error.
    pub output: String,
}

impl Ended {
    /// Asserts how it ended, and that it said so.
    pub fn with(&self, code: i32, says: &str) {
        assert!(self.code == code && self.output.contains(says), "expected {code} and {says:?}: {self:#?}");
    }
}

impl Site {
    /// Beside a fresh, empty token on which `serve` may make the first key.
    pub fn new() -> Self {
        let token = SoftHsm::new();
        let home = tempfile::tempdir().unwrap();
        let first_key = format!("[key_policy]\nfirst_key_on_token_serial = \"{}\"", token.serial);
        token.config(home.path(), &first_key);
        let environment = vec![("SOFTHSM2_CONF", token.conf())];
        Self { token, home, environment }
    }

    /// Beside a token with one active key, made by `init`.
    pub fn with_key() -> Self {
        let site = Self::new();
        site.run("init").with(0, "active key");
        site
    }

    /// Puts pkcs11-spy between the appliance and the token.
    pub fn spied(mut self) -> (Self, Spy) {
        let spy = Spy::new(self.home.path());
        self.edit_config(MODULE, Spy::module());
        self = self.with_module_environment(&spy.environment());
        (self, spy)
    }

    /// Puts the module that fails as it is told between the appliance and the token.
    pub fn faulty(mut self) -> (Self, Faults) {
        let faults = Faults::new(self.home.path());
        self.edit_config(MODULE, Faults::module().to_str().unwrap());
        self = self.with_module_environment(&faults.environment());
        (self, faults)
    }

    /// Runs with more environment variables, which the module's process gets as well.
    pub fn with_module_environment(mut self, variables: &[(&'static str, PathBuf)]) -> Self {
        let names: Vec<_> = variables.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        self.edit_config("[token]", &format!("[token]\nenvironment = [\"SOFTHSM2_CONF\", {}]", names.join(", ")));
        self.environment.extend_from_slice(variables);
        self
    }

    /// Runs with one more environment variable.
    pub fn with_environment(mut self, name: &'static str, value: &Path) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Another appliance's directories beside the same token, which stays this site's.
    pub fn neighbour(&self, name: &str) -> PathBuf {
        let home = self.path(name);
        self.token.config(&home, &format!("[key_policy]\nfirst_key_on_token_serial = \"{}\"", self.token.serial))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// The file that remembers the ledger.
    pub fn marker(&self) -> PathBuf {
        self.path("state/ledger-seen.json")
    }

    /// Takes the audit trail away, whole.
    pub fn forget_trail(&self) {
        fs::remove_dir_all(self.path("audit")).unwrap();
        fs::create_dir(self.path("audit")).unwrap();
        // The state directory remembers how far it went.
        let seen = self.path("state/audit-seen.json");
        assert!(!seen.exists() || fs::remove_file(seen).is_ok());
    }

    /// Replaces a part of the configuration that must be there.
    pub fn edit_config(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(from), "{from:?} is not in {text}");
        fs::write(self.config(), text.replace(from, to)).unwrap();
    }

    /// Runs `check` or `init` to its end.
    pub fn run(&self, subcommand: &str) -> Ended {
        let output = self.command(subcommand, &self.config()).output().unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            output: tool::text(&output.stdout) + &tool::text(&output.stderr),
        }
    }

    /// Copies the ledger from the token into the file that the configuration names.
    pub fn token_ledger(&self) -> Ended {
        let mut command = Command::new(BINARY);
        command.args(["token", "ledger", "--config"]).arg(self.config()).envs(self.environment.iter().cloned());
        let output = command.output().unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            output: tool::text(&output.stdout) + &tool::text(&output.stderr),
        }
    }

    /// Starts a subcommand without waiting for anything.
    pub fn spawn(&self, subcommand: &str) -> Child {
        let mut command = self.command(subcommand, &self.config());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts `serve`; how it ended when it did not come up.
    pub fn serve(&self) -> Result<Appliance, Ended> {
        self.serve_with(&self.config())
    }

    /// `serve` with another configuration beside this token.
    pub fn serve_with(&self, config: &Path) -> Result<Appliance, Ended> {
        Appliance::start(self.command("serve", config), config.parent().unwrap())
            .map_err(|(status, output)| Ended { code: status.code().unwrap_or(-1), output })
    }

    /// Runs a subcommand that must refuse.
    pub fn refuse(&self, subcommand: &str) -> Ended {
        let ended = match subcommand {
            "serve" => self.serve().map(|_| ()).expect_err("serve must not come up"),
            other => self.run(other),
        };
        assert_ne!(ended.code, 0, "{subcommand}: {ended:#?}");
        ended
    }

    /// The token alone: the appliance's directories are gone.
    pub fn into_token(self) -> SoftHsm {
        self.token
    }

    pub fn pkcs11_tool(&self) -> Pkcs11Tool {
        self.token.pkcs11_tool()
    }

    /// The doctor, answering in JSON.
    pub fn doctor(&self, config: &Path) -> Command {
        let mut command = self.command("doctor", config);
        command.arg("--json");
        command
    }

    /// A subcommand with this configuration, to be run.
    pub fn command(&self, subcommand: &str, config: &Path) -> Command {
        let mut command = Command::new(BINARY);
        command.args([subcommand, "--config"]).arg(config).envs(self.environment.iter().cloned());
        command
    }
}
