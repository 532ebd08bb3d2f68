//! What people want to read out of an answer.

use serde_json::Value;

use crate::timestamp::Timestamp;

/// A text at this place (RFC 6901); empty where there is none.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

pub(super) fn truth(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// The items of a list; none where there is no list.
pub(super) fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn time(value: &Value, pointer: &str) -> Option<Timestamp> {
    Timestamp::parse(text(value, pointer)).ok()
}

/// `2026-01-31 09:30Z`; empty where there is no time.
pub(super) fn minute(value: &Value, pointer: &str) -> String {
    time(value, pointer).map_or_else(String::new, |time| to_minute(time, 'Z'))
}

fn to_minute(time: Timestamp, zone: char) -> String {
    let text = time.to_utc().to_string();
    format!("{} {}{zone}", &text[..10], &text[11..16])
}

/// `2026-01-31`
pub(super) fn day(time: Timestamp) -> String {
    time.to_utc().to_string()[..10].to_owned()
}

/// How long, in the two largest units: `3 d 4 h`.
pub(super) fn span(seconds: i64) -> String {
    let (size, seconds) = (seconds.unsigned_abs(), seconds.unsigned_abs() % 60);
    let (days, hours, minutes) = (size / 86_400, size / 3600 % 24, size / 60 % 60);
    match (days, hours, minutes) {
        (10.., _, _) | (1.., 0, _) => format!("{days} d"),
        (1.., _, _) => format!("{days} d {hours} h"),
        (0, 1.., 0) => format!("{hours} h"),
        (0, 1.., _) => format!("{hours} h {minutes} min"),
        (0, 0, 1..) => format!("{minutes} min"),
        (0, 0, 0) => format!("{seconds} s"),
    }
}

/// `in 3 d`, `just now`, or `3 d ago`.
pub(super) fn relative(then: Timestamp, now: Timestamp) -> String {
    match then.seconds_since(now) {
        0 => "just now".into(),
        ahead @ 1.. => format!("in {}", span(ahead)),
        past => format!("{} ago", span(past)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_two_units_at_most() {
        let hour = 3600;
        for (seconds, told) in [
            (0, "0 s"),
            (-59, "59 s"),
            (61, "1 min"),
            (hour, "1 h"),
            (hour + 120, "1 h 2 min"),
            (24 * hour, "1 d"),
            (27 * hour, "1 d 3 h"),
            (90 * 24 * hour + hour, "90 d"),
        ] {
            assert_eq!(span(seconds), told, "{seconds}");
        }
        let now = Timestamp::parse("2026-01-31T09:30:00Z").unwrap();
        assert_eq!(relative(now.plus_seconds(7200), now), "in 2 h");
        assert_eq!(relative(now.plus_seconds(-7200), now), "2 h ago");
    }
}
