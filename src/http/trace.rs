//! What tells one request from another: its id, and the trace it belongs to (W3C Trace Context). Both
//! stand in the answer, in log lines, in records and in refusals.

use std::fmt;

tokio::task_local! {
    /// The request that is being worked on.
    pub(super) static CURRENT: Circumstances;
}

/// A request's id and trace.
#[derive(Clone, Debug)]
pub struct Circumstances {
    pub request_id: String,
    /// As the caller named it; without one there is no trace to follow.
    pub trace: Option<Trace>,
}

/// A trace that a caller began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    id: u128,
    flags: u8,
}

impl Trace {
    /// Reads a `traceparent` (Trace Context §3.2.2). Anything else than what the standard says is as
    /// if there were none (§3.2.2.5).
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let is_hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
        };
        let mut parts = header.trim().split('-');
        let [version, id, parent, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        let is_of_version = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        let well_formed = is_of_version && is_hex(id, 32) && is_hex(parent, 16) && is_hex(flags, 2);
        let id = u128::from_str_radix(id, 16).ok().filter(|id| well_formed && *id != 0)?;
        u64::from_str_radix(parent, 16).ok().filter(|parent| *parent != 0)?;
        Some(Self { id, flags: u8::from_str_radix(flags, 16).ok()? & 1 })
    }

    /// The trace's id, 32 hex digits.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{:032x}", self.id)
    }

    /// A `traceparent` of our own part in the trace.
    #[must_use]
    pub fn answer(&self) -> Option<String> {
        let mut part = [0; 8];
        getrandom::fill(&mut part).ok()?;
        Some(format!("00-{:032x}-{:016x}-{:02x}", self.id, u64::from_be_bytes(part).max(1), self.flags))
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_over_only_as_the_standard_writes_it() {
        let trace = Trace::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let answer = trace.answer().unwrap();
        assert_eq!(Trace::parse(&answer), Some(trace));
        assert_ne!(answer, trace.answer().unwrap(), "each part of a trace has an id of its own");
        assert!(Trace::parse("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes-later").is_some());
        for other in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::parse(other), None, "{other}");
        }
    }
}
