//! `blocks list`, `add`, `remove`.

use std::time::Duration;

use clap::Subcommand;
use comfy_table::Cell;
use serde_json::{Map, Value, json};

use super::{
    ask::By,
    failure::Failure,
    paint::{Tone, facts, table},
    session::{Connection, Session},
    value::{items, minute, text, truth},
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Those in force, newest first.
    List(List),
    /// Shut somebody out, on every appliance of the fleet.
    Add(Add),
    /// Let somebody in again.
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct List {
    /// Also those of the last 30 days that are over.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
#[group(id = "whom", required = true, multiple = false, args = ["address", "client", "subject"])]
pub(in crate::cli) struct Add {
    /// An address, or a network such as 192.0.2.0/24.
    #[arg(long)]
    address: Option<String>,
    /// A client, by its name.
    #[arg(long)]
    client: Option<String>,
    /// An account that attestations are about.
    #[arg(long)]
    subject: Option<String>,
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// How long, such as 1h or 30d [default: until it is lifted]
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    #[command(flatten)]
    by: By,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Remove {
    block_id: String,
    #[command(flatten)]
    by: By,
    #[command(flatten)]
    connection: Connection,
}

impl Command {
    pub(super) fn connection(&self) -> &Connection {
        match self {
            Self::List(options) => &options.connection,
            Self::Add(options) => &options.connection,
            Self::Remove(options) => &options.connection,
        }
    }
}

pub(super) fn run(command: &Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::List(options) => {
            let answer = session.get_with("/api/v1/blocks", &[("all", options.all.to_string())])?;
            session.show(&answer, list);
        }
        Command::Add(options) => {
            let answer = session.post("/api/v1/blocks", &options.body())?;
            session.show(&answer, one);
        }
        Command::Remove(options) => {
            let body = json!({ "initiated_by": options.by.name() });
            let answer = session.delete(&format!("/api/v1/blocks/{}", options.block_id), &body)?;
            session.show(&answer, one);
        }
    }
    Ok(())
}

impl Add {
    fn body(&self) -> Value {
        let mut body = Map::new();
        for (name, given) in [("address", &self.address), ("client", &self.client), ("subject", &self.subject)] {
            given.as_ref().map(|given| body.insert(name.into(), json!(given)));
        }
        body.insert("reason".into(), json!(self.reason));
        body.insert("initiated_by".into(), json!(self.by.name()));
        self.duration.map(|duration| body.insert("duration_seconds".into(), json!(duration.as_secs())));
        body.into()
    }
}

/// Whom it keeps out.
pub(super) fn whom(block: &Value) -> String {
    let kinds = ["address", "client", "subject"];
    let named = kinds.iter().find_map(|kind| block[*kind].as_str().map(|name| format!("{kind} {name}")));
    named.unwrap_or_default()
}

fn until(block: &Value) -> (Tone, String) {
    match (truth(block, "/in_force"), block["removed_at"].as_str(), block["expires_at"].as_str()) {
        (_, Some(_), _) => (Tone::Quiet, format!("lifted {}", minute(block, "/removed_at"))),
        (true, None, Some(_)) => (Tone::Bad, minute(block, "/expires_at")),
        (true, None, None) => (Tone::Bad, "it is lifted".into()),
        (false, None, _) => (Tone::Quiet, format!("ended {}", minute(block, "/expires_at"))),
    }
}

fn list(blocks: &Value) {
    let row = |block: &Value| {
        let (tone, until) = until(block);
        vec![
            Cell::new(text(block, "/id")),
            Cell::new(whom(block)),
            tone.cell(until),
            Cell::new(text(block, "/initiated_by")),
            Cell::new(text(block, "/reason")),
        ]
    };
    let rows = items(blocks, "").iter().map(row).collect();
    table(&["block", "whom", "until", "by", "reason"], rows, "Nobody is shut out.");
}

fn one(block: &Value) {
    let (tone, until) = until(block);
    facts(&[
        ("block", text(block, "/id").to_owned()),
        ("whom", whom(block)),
        ("until", tone.paint(until)),
        ("reason", text(block, "/reason").to_owned()),
    ]);
}
