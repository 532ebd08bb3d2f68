//! `approvals list`, `show`, `approve`, `reject`; and what is said when a change waits for one.

use clap::Subcommand;
use comfy_table::Cell;
use serde_json::{Value, json};

use super::{
    ask::Consent,
    failure::Failure,
    paint::{Tone, facts, table, word},
    session::{Connection, Session},
    value::{items, minute, number, relative, text, time},
};
use crate::clock::Clock;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// All of them, newest first.
    List(List),
    /// All about one.
    Show(One),
    /// Agree to what is asked for, as it is shown.
    Approve(Approve),
    /// Object, or take your own request back.
    Reject(Reject),
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct One {
    approval_id: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Approve {
    approval_id: String,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Reject {
    approval_id: String,
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    connection: Connection,
}

impl Command {
    pub(super) fn connection(&self) -> &Connection {
        match self {
            Self::List(options) => &options.connection,
            Self::Show(options) => &options.connection,
            Self::Approve(options) => &options.connection,
            Self::Reject(options) => &options.connection,
        }
    }
}

fn path(id: &str) -> String {
    format!("/api/v1/approvals/{id}")
}

pub(super) fn run(command: &Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::List(_) => {
            let answer = session.get("/api/v1/approvals")?;
            session.show(&answer, list);
        }
        Command::Show(options) => {
            let answer = session.get(&path(&options.approval_id))?;
            session.show(&answer, |request| facts(&about(request)));
        }
        Command::Approve(options) => approve(options, session)?,
        Command::Reject(options) => {
            let rejected = path(&options.approval_id) + "/reject";
            let answer = session.post(&rejected, &json!({ "reason": options.reason }))?;
            session.show(&answer, |request| facts(&about(request)));
        }
    }
    Ok(())
}

/// The digest that is sent is that of what was shown: what changes in between is not approved.
fn approve(options: &Approve, session: &Session) -> Result<(), Failure> {
    let request = session.get(&path(&options.approval_id))?.value;
    if !session.json {
        facts(&about(&request));
    }
    options.consent.obtain("approvals approve", "\nYou agree to exactly this.")?;
    let body = json!({ "digest": text(&request, "/digest") });
    let answer = session.post(&(path(&options.approval_id) + "/approve"), &body)?;
    session.show(&answer, |request| match text(request, "/status") {
        "approved" => {
            let maker = text(request, "/requested_by");
            anstream::println!(
                "{}: {maker} gives the same command again, and it is carried out",
                Tone::Good.paint("approved")
            );
        }
        _ => anstream::println!("approved by you; {} are needed", number(request, "/needed/count")),
    });
    Ok(())
}

/// What a request asks for, in one line.
pub(super) fn what(request: &Value) -> String {
    format!("{} {}", text(request, "/operation"), text(request, "/target")).trim_end().to_owned()
}

fn names(list: &[Value], of: impl Fn(&Value) -> String) -> String {
    list.iter().map(of).collect::<Vec<_>>().join(", ")
}

fn roles(request: &Value) -> String {
    names(items(request, "/needed/roles"), |role| role.as_str().unwrap_or_default().to_owned()).replace(", ", " or ")
}

fn about(request: &Value) -> Vec<(&'static str, String)> {
    let given = items(request, "/approvals");
    let status = text(request, "/status");
    let rejected = match text(request, "/rejection/by") {
        "" => String::new(),
        by => format!("by {by}: {}", text(request, "/rejection/reason")),
    };
    vec![
        ("approval", text(request, "/approval_id").to_owned()),
        ("status", Tone::of(status).paint(status)),
        ("asks for", what(request)),
        ("content", request["content"].to_string()),
        ("requested", format!("{} by {}", minute(request, "/requested_at"), text(request, "/requested_by"))),
        ("expires", minute(request, "/expires_at")),
        ("needs", format!("{} of {}", number(request, "/needed/count"), roles(request))),
        ("approved by", names(given, |one| text(one, "/by").to_owned())),
        ("rejected", rejected),
        ("used", minute(request, "/used_at")),
        ("digest", text(request, "/digest").to_owned()),
    ]
}

fn list(requests: &Value) {
    let row = |request: &Value| {
        let (given, needed) = (items(request, "/approvals").len(), number(request, "/needed/count"));
        vec![
            Cell::new(text(request, "/approval_id")),
            word(text(request, "/status")),
            Cell::new(what(request)),
            Cell::new(text(request, "/requested_by")),
            Cell::new(format!("{given} of {needed} ({})", roles(request))),
            Cell::new(minute(request, "/expires_at")),
        ]
    };
    let rows = items(requests, "").iter().map(row).collect();
    table(&["approval", "status", "asks for", "by", "approvals", "expires"], rows, "Nothing waits for an approval.");
}

/// A change was asked for, and others have to agree first.
pub(super) fn explain_waiting(request: &Value, session: &Session) {
    let now = Clock::system().now();
    let id = text(request, "/approval_id");
    let left = time(request, "/expires_at").map_or_else(String::new, |until| relative(until, now));
    let (given, needed) = (items(request, "/approvals").len(), number(request, "/needed/count"));
    anstream::eprintln!("{}: nothing was done yet", Tone::Notice.paint("Waits for approval"));
    anstream::eprintln!("  asks for   {}", what(request));
    anstream::eprintln!("  approvals  {given} of {needed}, by somebody else with the role {}", roles(request));
    anstream::eprintln!("  expires    {left}");
    anstream::eprintln!("Somebody else types\n  verification-signer approvals approve {id}{}", session.elsewhere());
    anstream::eprintln!("Then give the same command again.");
}
