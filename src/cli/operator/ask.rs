//! Asking a person before something that cannot be undone, and who that person is.

use std::io::{self, BufRead, IsTerminal, Write};

use serde_json::Value;

use super::{
    failure::Failure,
    session::{Answer, Connection, Session},
};

/// The consent to what cannot be undone.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Consent {
    /// Do not ask. Needed where no terminal is.
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Shows what is about to happen, and waits for `yes`.
    pub(super) fn obtain(&self, command: &'static str, about: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::NobodyToAsk(command));
        }
        eprint!("{about}\nType yes to go on: ");
        let _ = io::stderr().flush();
        let mut typed = String::new();
        let read = io::stdin().lock().read_line(&mut typed);
        if read.is_ok() && typed.trim() == "yes" { Ok(()) } else { Err(Failure::Declined) }
    }
}

/// Who asks for a change, and whether alone.
#[derive(Debug, clap::Args)]
pub(super) struct By {
    /// Who wanted it, for the record [default: the user who types this]
    #[arg(long, value_name = "NAME")]
    initiated_by: Option<String>,
}

impl By {
    /// A note beside the actor, whom the appliance knows by itself.
    pub(super) fn name(&self) -> String {
        let named = self.initiated_by.clone();
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let user = || variable("SUDO_USER").or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
        named.or_else(user).unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
    }
}

/// Who acts without the approvals that [approvals] asks for.
#[derive(Debug, clap::Args)]
struct Alone {
    /// Act without the approvals that are asked for. The reason is on record, and an alarm goes off.
    #[arg(long, value_name = "REASON")]
    break_glass: Option<String>,
}

/// What every change of the keys takes.
#[derive(Debug, clap::Args)]
pub(super) struct Change {
    #[command(flatten)]
    pub(super) by: By,
    #[command(flatten)]
    alone: Alone,
    #[command(flatten)]
    pub(super) connection: Connection,
}

impl Change {
    /// Asks for it.
    pub(super) fn post(&self, session: &Session, path: &str, body: &Value) -> Result<Answer, Failure> {
        session.post_as(path, body, self.alone.break_glass.as_deref())
    }
}
