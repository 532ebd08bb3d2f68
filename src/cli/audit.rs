//! `audit verify` and `audit export`: the trail, without the appliance. `audit search` and `audit rotate` ask
//! the appliance.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Subcommand, ValueEnum};

use super::{operator, refused};
use crate::{
    audit::{self, EventType, Filter, Format, Outcome, Severity},
    exit_code::ExitCode,
    timestamp::Timestamp,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Verify a trail offline, with the public audit key alone. Exit code 65: it is not what it must be.
    Verify(Verify),
    /// Write records to standard output or a file.
    Export(Export),
    /// Ask the running appliance for records, newest first.
    Search(operator::AuditSearch),
    /// Have the running appliance close the file and begin a new one.
    Rotate(operator::AuditRotate),
}

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// Where the trail lies.
    #[arg(value_name = "DIR", default_value_os_t = audit::Config::default().directory)]
    directory: PathBuf,
    /// The public audit key, or several, as PEM [default: audit.keys.pem beside the trail, which proves
    /// nothing against somebody who can write there]
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// A checkpoint that was kept elsewhere: the trail must continue it. May be given several times.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Jsonl,
    Csv,
}

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// Where the trail lies.
    #[arg(value_name = "DIR", default_value_os_t = audit::Config::default().directory)]
    directory: PathBuf,
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Form,
    /// The file to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Remember that everything up to now is exported: retention may remove it. Needs --output, and no filter.
    #[arg(long, requires = "output", conflicts_with_all = ["event_type", "actor", "resource", "key_id", "ip", "outcome", "severity", "since", "until"])]
    mark_exported: bool,
    #[arg(long, value_parser = word::<EventType>)]
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
    #[arg(long, value_parser = word::<Outcome>)]
    outcome: Option<Outcome>,
    #[arg(long, value_parser = word::<Severity>)]
    severity: Option<Severity>,
    /// RFC 3339, such as 2026-01-31T09:30:00Z.
    #[arg(long, value_parser = Timestamp::parse)]
    since: Option<Timestamp>,
    #[arg(long, value_parser = Timestamp::parse)]
    until: Option<Timestamp>,
}

/// One of the words of an enumeration.
pub(super) fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

pub(super) fn run(command: &Command) -> Result<ExitCode, ExitCode> {
    match command {
        Command::Verify(options) => verify(options),
        Command::Export(options) => export(options),
        Command::Search(options) => operator::search(options),
        Command::Rotate(options) => operator::rotate_trail(options),
    }
}

fn verify(options: &Verify) -> Result<ExitCode, ExitCode> {
    let beside = options.directory.join(audit::KEYS);
    let key_file = options.public_key.as_ref().unwrap_or(&beside);
    let keys = audit::keys_from_pem(key_file).map_err(|error| {
        refused(
            &format!("the public audit key {}: {error}; name it with --public-key", key_file.display()),
            ExitCode::Usage,
        )
    })?;
    let elsewhere: Vec<&Path> = options.checkpoint.iter().map(PathBuf::as_path).collect();
    let report = audit::verify(&options.directory, &keys, &elsewhere, progress("verified"))
        .map_err(|wrong| refused(&format!("NOT VERIFIED: {}: {}", wrong.path.display(), wrong.what), ExitCode::Data))?;
    for remark in &report.remarks {
        println!("remark      {remark}");
    }
    if options.public_key.is_none() {
        println!("remark      verified with the key that lies beside the trail: hold a copy of your own");
    }
    println!("records     {} in {} file(s), {} without outcome", report.records, report.files, report.open);
    let (covered, follow) = (report.covered, report.records - report.covered);
    println!("checkpoints {}, the last covers {covered} record(s), {follow} follow it", report.checkpoints);
    println!("root        {}", hex::encode(report.root));
    println!("verified: ok");
    Ok(ExitCode::Success)
}

fn export(options: &Export) -> Result<ExitCode, ExitCode> {
    if !options.directory.join("audit.log").is_file() {
        let here = options.directory.display();
        return Err(refused(&format!("export: there is no audit trail in {here}: name its directory"), ExitCode::Data));
    }
    let failed = |error: io::Error| refused(&format!("export: {error}"), ExitCode::Unavailable);
    let filter = Filter {
        event_type: options.event_type,
        actor: options.actor.clone(),
        resource: options.resource.clone(),
        key_id: options.key_id.clone(),
        ip: options.ip.clone(),
        outcome: options.outcome,
        severity: options.severity,
        since: options.since,
        until: options.until,
    };
    let format = match options.format {
        Form::Jsonl => Format::JsonLines,
        Form::Csv => Format::Csv,
    };
    let (written, last) = match &options.output {
        None => audit::export(&options.directory, &filter, format, &mut BufWriter::new(io::stdout().lock())),
        Some(path) => to_file(path, |file| audit::export(&options.directory, &filter, format, file)),
    }
    .map_err(failed)?;
    if options.mark_exported {
        audit::mark_exported(&options.directory, last).map_err(failed)?;
    }
    if options.output.is_some() {
        println!("{written} record(s) written, of {last}");
    }
    Ok(ExitCode::Success)
}

/// Writes a file that is on disk when it is said to be written.
fn to_file<T>(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>) -> io::Result<T> {
    let mut file = BufWriter::new(File::create(path)?);
    let done = write(&mut file)?;
    file.flush()?;
    file.get_ref().sync_all()?;
    Ok(done)
}

/// Says on a terminal how far a long reading has come.
fn progress(what: &'static str) -> impl FnMut(u64) {
    let (shown, mut last) = (io::stderr().is_terminal(), Instant::now());
    move |records| {
        if shown && records % 4096 == 0 && last.elapsed() > Duration::from_millis(250) {
            last = Instant::now();
            eprint!("\r{what} {records} records");
        }
    }
}
