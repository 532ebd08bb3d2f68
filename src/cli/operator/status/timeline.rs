//! Keys on one line of time: who signed when, overlaps, what ends next.

use serde_json::Value;

use super::super::{
    keys::until,
    paint::Tone,
    value::{day, items, number, span, text, time},
};
use crate::timestamp::Timestamp;

/// Keys that fit on a screen; older ones are counted.
const SHOWN: usize = 8;

/// A stretch of a key's life.
struct Stretch {
    from: Timestamp,
    to: Timestamp,
    stroke: char,
}

/// The line's ends, and how many columns lie between.
struct Axis {
    from: Timestamp,
    to: Timestamp,
    columns: usize,
}

impl Axis {
    fn column(&self, time: Timestamp) -> usize {
        let whole = self.to.seconds_since(self.from).max(1);
        let part = time.seconds_since(self.from).clamp(0, whole);
        let last = i64::try_from(self.columns - 1).unwrap_or(i64::MAX);
        usize::try_from(i128::from(part) * i128::from(last) / i128::from(whole)).unwrap_or_default()
    }
}

pub(super) fn show(seen: &Value, now: Timestamp, width: usize) {
    let keys = items(seen, "/signer/keys");
    let shown = &keys[..keys.len().min(SHOWN)];
    let Some(from) = shown.iter().filter_map(begin).min() else {
        anstream::println!("  There is no key yet.");
        return;
    };
    let ends = shown.iter().flat_map(|key| stretches(key, seen, now)).map(|stretch| stretch.to);
    let label = shown.iter().map(|key| text(key, "/key_id").len()).max().unwrap_or_default();
    // Room for the key's name and state before the line, and for what is said of it after.
    let columns = width.saturating_sub(label + 9 + 48).clamp(16, 64);
    let axis = Axis { from, to: ends.max().unwrap_or(now).max(now.plus_seconds(1)), columns };
    anstream::println!("{}", head(&axis, now, label));
    for key in shown {
        let state = text(key, "/state");
        let tone = Tone::of(state);
        let name = format!("{:<label$}", text(key, "/key_id"));
        let line = line(&axis, &stretches(key, seen, now), now);
        let said = said(key, &seen["signer"]["policy"]["key"], now);
        let name = if state == "active" { super::bold(&name) } else { name };
        anstream::println!("  {name}  {}  {}  {said}", tone.paint(format_args!("{state:<8}")), tone.paint(line));
    }
    if keys.len() > SHOWN {
        anstream::println!("  and {} older ones: verification-signer keys", keys.len() - SHOWN);
    }
}

fn begin(key: &Value) -> Option<Timestamp> {
    time(key, "/activated_at").or_else(|| time(key, "/generated_at"))
}

/// When another key took over.
fn replaced_at(key: &Value, seen: &Value) -> Option<Timestamp> {
    let id = text(key, "/key_id");
    let rotations = items(seen, "/rotations").iter();
    let away =
        rotations.filter(|rotation| text(rotation, "/old_key_id") == id && text(rotation, "/status") != "cancelled");
    away.filter_map(|rotation| time(rotation, "/started_at")).max()
}

/// ━ signs, ┅ is verified only, ─ will sign, ┄ waits.
fn stretches(key: &Value, seen: &Value, now: Timestamp) -> Vec<Stretch> {
    let Some(from) = begin(key) else { return Vec::new() };
    let at = |pointer| time(key, pointer);
    let (replaced, expires) = (replaced_at(key, seen), at("/expires_at").unwrap_or(now));
    let stretch = |from, to, stroke| Stretch { from, to, stroke };
    match text(key, "/state") {
        "pending" => vec![stretch(from, now, '┄')],
        "active" => vec![stretch(from, now, '━'), stretch(now, expires, '─')],
        "rotating" => {
            let left = replaced.unwrap_or(now);
            vec![stretch(from, left, '━'), stretch(left, at("/overlap_until").unwrap_or(now), '┅')]
        }
        "revoked" => {
            let end = at("/revocation/revoked_at").unwrap_or(now);
            vec![stretch(from, replaced.unwrap_or(end).min(end), '━'), stretch(end, end, '×')]
        }
        "expired" => vec![stretch(from, expires, '━')],
        _ => {
            let retired = at("/retired_at").unwrap_or(now);
            let left = replaced.unwrap_or(retired).min(retired);
            vec![stretch(from, left, '━'), stretch(left, retired, '┅')]
        }
    }
}

fn line(axis: &Axis, stretches: &[Stretch], now: Timestamp) -> String {
    let mut cells = vec![' '; axis.columns];
    for stretch in stretches {
        cells[axis.column(stretch.from)..=axis.column(stretch.to)].fill(stretch.stroke);
    }
    let now = &mut cells[axis.column(now)];
    *now = if *now == '━' || *now == '─' {
        '┿'
    } else if *now == ' ' {
        '│'
    } else {
        *now
    };
    cells.into_iter().collect()
}

/// The first and the last day, and where now is.
fn head(axis: &Axis, now: Timestamp, label: usize) -> String {
    let (first, last, at) = (day(axis.from), day(axis.to), axis.column(now));
    let mut cells = vec![' '; axis.columns];
    let mut put = |at: usize, text: &str| {
        let at = at.min(axis.columns.saturating_sub(text.len()));
        let free = (at.saturating_sub(1)..(at + text.len() + 1).min(axis.columns)).all(|cell| cells[cell] == ' ');
        if free {
            text.chars().enumerate().for_each(|(index, letter)| cells[at + index] = letter);
        }
    };
    put(at.saturating_sub(1), "now");
    put(0, &first);
    put(axis.columns, &last);
    let line: String = cells.into_iter().collect();
    Tone::Quiet.paint(format_args!("  {:label$}  {:8}  {}", "", "", line.trim_end()))
}

/// What is worth a word beside the line.
fn said(key: &Value, policy: &Value, now: Timestamp) -> String {
    let (Some(activated), "active") = (time(key, "/activated_at"), text(key, "/state")) else {
        return Tone::Quiet.paint(until(key, now));
    };
    let age = now.seconds_since(activated);
    let warn = number(policy, "/warn_age_seconds") - age;
    let rotate = if warn > 0 { format!("rotate in {}", span(warn)) } else { Tone::Notice.paint("rotate now") };
    format!("age {}, {rotate}, {}", span(age), until(key, now))
}
