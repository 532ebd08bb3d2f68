//! `maintenance show`, `on`, `off`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Look,
    ask::By,
    failure::Failure,
    paint::Tone,
    session::{Connection, Session},
    value::{minute, text, truth},
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Whether this appliance is in service.
    Show(Look),
    /// Out of service: no nonce and no signature; verification, reads and changes of keys go on.
    On(On),
    /// Back into service.
    Off(Off),
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct On {
    /// Why; whoever is turned away reads it.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    by: By,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Off {
    #[command(flatten)]
    by: By,
    #[command(flatten)]
    connection: Connection,
}

impl Command {
    pub(super) fn connection(&self) -> &Connection {
        match self {
            Self::Show(options) => &options.connection,
            Self::On(options) => &options.connection,
            Self::Off(options) => &options.connection,
        }
    }
}

pub(super) fn run(command: &Command, session: &Session) -> Result<(), Failure> {
    const PATH: &str = "/api/v1/maintenance";
    let answer = match command {
        Command::Show(_) => session.get(PATH)?,
        Command::On(options) => {
            let body = json!({ "on": true, "reason": options.reason, "initiated_by": options.by.name() });
            session.put(PATH, &body)?
        }
        Command::Off(options) => session.put(PATH, &json!({ "on": false, "initiated_by": options.by.name() }))?,
    };
    session.show(&answer, show);
    Ok(())
}

fn show(maintenance: &Value) {
    if !truth(maintenance, "/on") {
        anstream::println!("{}", Tone::Good.paint("in service"));
        return;
    }
    let (since, by) = (minute(maintenance, "/since"), text(maintenance, "/initiated_by"));
    anstream::println!(
        "{} since {since}, by {by}: {}",
        Tone::Notice.paint("out of service"),
        text(maintenance, "/reason")
    );
}
