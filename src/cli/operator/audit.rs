//! `audit search` and `audit rotate`: through the appliance and its index, which know the trail whole.

use comfy_table::Cell;
use serde_json::{Value, json};

use super::{
    failure::Failure,
    paint::{Tone, table, word},
    session::{Connection, Session},
    value::{items, text},
};
use crate::{
    audit::{EventType, Outcome, Severity},
    cli::audit::word as word_of,
    clock::Clock,
    timestamp::Timestamp,
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Search {
    #[arg(long, value_parser = word_of::<EventType>)]
    event_type: Option<EventType>,
    #[arg(long)]
    actor: Option<String>,
    #[arg(long)]
    resource: Option<String>,
    /// Every record about this key.
    #[arg(long)]
    key_id: Option<String>,
    #[arg(long)]
    ip: Option<String>,
    #[arg(long, value_parser = word_of::<Outcome>)]
    outcome: Option<Outcome>,
    #[arg(long, value_parser = word_of::<Severity>)]
    severity: Option<Severity>,
    /// RFC 3339, such as 2026-01-31T09:30:00Z, or how long ago, such as 2h.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Oldest first.
    #[arg(long)]
    oldest: bool,
    #[command(flatten)]
    pub(super) connection: Connection,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Rotate {
    #[command(flatten)]
    pub(super) connection: Connection,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let ago = |length: std::time::Duration| {
        let seconds = i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
        Clock::system().now().plus_seconds(-seconds)
    };
    humantime::parse_duration(text).map(ago).or_else(|_| Timestamp::parse(text).map_err(|error| error.to_string()))
}

impl Search {
    fn query(&self) -> Vec<(&'static str, String)> {
        let given = [
            ("event_type", self.event_type.map(|kind| kind.as_str().to_owned())),
            ("actor", self.actor.clone()),
            ("resource", self.resource.clone()),
            ("key_id", self.key_id.clone()),
            ("ip", self.ip.clone()),
            ("outcome", self.outcome.map(|outcome| outcome.as_str().to_owned())),
            ("severity", self.severity.map(|severity| severity.as_str().to_owned())),
            ("since", self.since.map(|time| time.to_string())),
            ("until", self.until.map(|time| time.to_string())),
            ("limit", Some(self.limit.to_string())),
            ("order", self.oldest.then(|| "asc".to_owned())),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

pub(super) fn search(options: &Search, session: &Session) -> Result<(), Failure> {
    let answer = session.get_with("/api/v1/audit", &options.query())?;
    session.show(&answer, |records| {
        let rows = items(records, "").iter().map(row).collect();
        let head = ["time", "type", "outcome", "actor", "resource", "action", "from"];
        table(&head, rows, "No record fits.");
        if answer.more {
            anstream::eprintln!("{}", Tone::Quiet.paint("There are more: narrow it, or raise --limit."));
        }
    });
    Ok(())
}

/// One record in one line, with the colour of its severity.
pub(super) fn row(record: &Value) -> Vec<Cell> {
    let plain = |pointer| Cell::new(text(record, pointer));
    let time = text(record, "/timestamp");
    let time = time.get(..19).unwrap_or(time).replace('T', " ");
    vec![
        Tone::Quiet.cell(time),
        Tone::of(text(record, "/severity")).cell(text(record, "/type")),
        word(text(record, "/outcome")),
        plain("/actor"),
        plain("/resource"),
        plain("/action"),
        plain("/request/ip_address"),
    ]
}

pub(super) fn rotate(session: &Session) -> Result<(), Failure> {
    let answer = session.post("/api/v1/audit/rotate", &json!({}))?;
    session.show(&answer, |done| match text(done, "/closed") {
        "" => anstream::println!("another request has closed the file in the same moment"),
        closed => anstream::println!("closed {closed}"),
    });
    Ok(())
}
