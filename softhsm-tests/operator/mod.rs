//! The operators' commands against a running appliance, over its Unix socket, as different people.

mod commands;
mod people;
mod refusals;
mod status;

use std::{
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{appliance::BINARY, signer::Signer, tool};

/// An appliance with a socket.
struct Desk {
    signer: Signer,
    place: TempDir,
    environment: Vec<(&'static str, String)>,
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    printed: String,
    said: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let (printed, said) = (tool::text(&output.stdout), tool::text(&output.stderr));
        Self { code: output.status.code().unwrap_or(-1), printed, said }
    }
}

impl Ended {
    /// Asserts success, and that this was printed; all that was printed.
    fn prints(self, expected: &[&str]) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        for text in expected {
            assert!(self.printed.contains(text), "{text:?} is not in {}\n{}", self.printed, self.said);
        }
        self.printed
    }

    /// Asserts a failure of this kind that says this.
    fn says(&self, code: i32, expected: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for text in expected {
            assert!(self.said.contains(text), "{text:?} is not in {}", self.said);
        }
    }

    fn json(self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.printed).unwrap_or_else(|error| panic!("{error}: {}", self.printed))
    }
}

impl Desk {
    fn new() -> Self {
        Self::with("[fleet]\nsingle = true")
    }

    /// With these tables.
    fn with(tables: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let socket = format!("unix_socket = \"{}\"", place.path().join("api.sock").display());
        Self { signer: Signer::with_lines("[http]", &socket, "", tables), place, environment: Vec::new() }
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join("api.sock")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--socket").arg(self.socket()).stdin(Stdio::null()).env("USER", "jo");
        command.env_remove("SUDO_USER").envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A command of whoever runs the tests, called jo.
    fn run(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().unwrap().into()
    }

    /// A command of a process of this group.
    fn run_as_group(&self, group: u32, arguments: &[&str]) -> Ended {
        self.command(arguments).gid(group).output().unwrap().into()
    }
}
