//! `audit export`: records as they are (JSON lines), or as a table (CSV, RFC 4180).

use std::{
    io::{self, Write},
    path::Path,
};

use serde_json::Value;

use super::{
    filter::{Facts, Filter},
    replay::Head,
    segment,
};
use crate::durable;

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    JsonLines,
    Csv,
}

/// The columns of the table: fields of the record, dotted where they lie deeper.
const COLUMNS: [&str; 21] = [
    "sequence",
    "id",
    "type",
    "timestamp",
    "actor",
    "resource",
    "action",
    "outcome",
    "severity",
    "details",
    "request.request_id",
    "request.ip_address",
    "request.user_agent",
    "request.endpoint",
    "request.method",
    "duration",
    "trace_id",
    "source.service",
    "source.component",
    "source.instance",
    "source.version",
];

/// Remembers how far the trail has been exported whole.
const EXPORTED: &str = "audit.exported";

/// Writes every record that `filter` accepts; how many, and the last record that was looked at.
pub fn export(directory: &Path, filter: &Filter, format: Format, out: &mut impl Write) -> io::Result<(u64, u64)> {
    if format == Format::Csv {
        writeln!(out, "{}", COLUMNS.join(","))?;
    }
    let (mut written, mut last) = (0, 0);
    for segment in segment::list(directory)? {
        let mut lines = segment.lines_from(0)?;
        while let Some(line) = lines.next()? {
            // What is torn is no record.
            let Some(head) = Head::parse(line.bytes).filter(|_| line.is_whole) else { continue };
            last = head.sequence;
            if Facts::parse(line.bytes).is_some_and(|facts| filter.accepts(&facts)) {
                write_record(line.bytes, format, out)?;
                written += 1;
            }
        }
    }
    out.flush()?;
    Ok((written, last))
}

fn write_record(line: &[u8], format: Format, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::JsonLines => out.write_all(line)?,
        Format::Csv => {
            let record: Value = serde_json::from_slice(line)?;
            let cells: Vec<_> = COLUMNS.iter().map(|column| cell(at(&record, column))).collect();
            out.write_all(cells.join(",").as_bytes())?;
        }
    }
    out.write_all(b"\n")
}

fn at<'a>(record: &'a Value, column: &str) -> &'a Value {
    column.split('.').fold(record, |value, name| value.get(name).unwrap_or(&Value::Null))
}

/// A quoted cell. Text that a spreadsheet would take for a formula gets an apostrophe before it:
/// some of it was chosen by callers.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// Remembers that every record up to `last` has been exported.
pub fn mark_exported(directory: &Path, last: u64) -> io::Result<()> {
    durable::replace(&directory.join(EXPORTED), format!("{last}\n").as_bytes())
}

/// The last record that has been exported.
#[must_use]
pub fn exported(directory: &Path) -> u64 {
    let text = std::fs::read_to_string(directory.join(EXPORTED)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}
