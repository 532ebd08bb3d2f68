//! A point in time as it appears on the wire: RFC 3339, written exactly as the chain's Go code
//! writes it (`time.RFC3339Nano`): nanoseconds with trailing zeros cut, a zero offset as `Z`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::{Duration, OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// A timestamp that keeps the zone it came in. Years 0000 to 9999, nanosecond precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(OffsetDateTime);

/// Why a text is not a [`Timestamp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an RFC 3339 time such as 2026-01-31T09:30:00Z, with at most 9 fraction digits")]
pub struct InvalidTimestamp;

impl Timestamp {
    /// Reads RFC 3339 as strictly as Go's JSON decoder: upper-case `T` and `Z`, no leap second.
    /// More than nine fraction digits are refused, since dropping them would change what is signed.
    pub fn parse(text: &str) -> Result<Self, InvalidTimestamp> {
        let bytes = text.as_bytes();
        let strict_shape = bytes.len() >= 20
            && bytes.len() <= 35
            && bytes[10] == b'T'
            && &bytes[17..19] != b"60"
            && !bytes.contains(&b'z')
            && fraction_digits(bytes) <= 9
            && offset_in_range(bytes);
        if !strict_shape {
            return Err(InvalidTimestamp);
        }
        let parsed = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| InvalidTimestamp)?;
        // Converting to UTC may leave the years that RFC 3339 can write.
        match parsed.checked_to_offset(UtcOffset::UTC) {
            Some(utc) if (0..=9999).contains(&utc.year()) => Ok(Self(parsed)),
            _ => Err(InvalidTimestamp),
        }
    }

    /// The same instant in UTC.
    #[must_use]
    pub fn to_utc(self) -> Self {
        Self(self.0.to_offset(UtcOffset::UTC))
    }

    /// Seconds since 1970-01-01T00:00:00Z, rounded down.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        self.0.unix_timestamp()
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn unix_milliseconds(self) -> i64 {
        self.0.unix_timestamp() * 1000 + i64::from(self.0.millisecond())
    }

    /// The instant `seconds` after the Unix epoch, if RFC 3339 can write it.
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
        (0..=9999).contains(&time.year()).then_some(Self(time))
    }

    /// This instant moved by `seconds`; stops at the last instant RFC 3339 can write.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(Duration::seconds(seconds)))
    }

    /// This instant moved by `duration`; stops at the last instant RFC 3339 can write.
    #[must_use]
    pub fn plus(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_add(Duration::try_from(duration).unwrap_or(Duration::MAX)))
    }

    /// Whole seconds from `earlier` to `self`, negative when `earlier` is later.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> i64 {
        (self.0 - earlier.0).whole_seconds()
    }

    /// Seconds that this instant lies after the span from `first` to `last`, negative when before it, 0
    /// within.
    #[must_use]
    pub fn seconds_outside(self, first: Self, last: Self) -> f64 {
        let nearest = self.0.clamp(first.0.min(last.0), first.0.max(last.0));
        (self.0 - nearest).as_seconds_f64()
    }

    /// The same instant without its fraction, for places that store whole seconds.
    #[must_use]
    pub fn truncated_to_seconds(self) -> Self {
        Self(self.0.replace_nanosecond(0).expect("0 is a valid nanosecond"))
    }

    /// The calendar view, for encoders of other formats (DER, PKCS#11 dates).
    #[must_use]
    pub fn as_offset_date_time(self) -> OffsetDateTime {
        self.0
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(time: OffsetDateTime) -> Self {
        Self(time)
    }
}

fn fraction_digits(bytes: &[u8]) -> usize {
    match bytes.get(19) {
        Some(b'.') => bytes[20..].iter().take_while(|b| b.is_ascii_digit()).count(),
        _ => 0,
    }
}

/// `Z`, or `±hh:mm` with hh up to 23 and mm up to 59.
fn offset_in_range(bytes: &[u8]) -> bool {
    match bytes {
        [.., b'Z'] => true,
        [.., b'+' | b'-', h1, h2, b':', m1, m2] => {
            let two = |a: u8, b: u8| u32::from(a.wrapping_sub(b'0')) * 10 + u32::from(b.wrapping_sub(b'0'));
            two(*h1, *h2) <= 23 && two(*m1, *m2) <= 59
        }
        _ => false,
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.0;
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        )?;
        if t.nanosecond() != 0 {
            let digits = format!("{:09}", t.nanosecond());
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        let offset = t.offset();
        if offset.is_utc() {
            return f.write_str("Z");
        }
        let sign = if offset.is_negative() { '-' } else { '+' };
        let (hours, minutes, _) = offset.as_hms();
        write!(f, "{sign}{:02}:{:02}", hours.unsigned_abs(), minutes.unsigned_abs())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_written_as_go_writes_it() {
        for (input, output) in [
            ("2026-11-23T10:00:00Z", "2026-11-23T10:00:00Z"),
            ("2026-11-23T10:00:00.120Z", "2026-11-23T10:00:00.12Z"),
            ("2026-11-23T10:00:00.000000001Z", "2026-11-23T10:00:00.000000001Z"),
            ("2026-11-23T10:00:00.000Z", "2026-11-23T10:00:00Z"),
            ("2026-11-23T12:00:00.5+02:00", "2026-11-23T12:00:00.5+02:00"),
            ("2026-11-23T12:00:00-03:30", "2026-11-23T12:00:00-03:30"),
            ("2026-11-23T12:00:00-00:30", "2026-11-23T12:00:00-00:30"),
            ("2026-11-23T10:00:00+00:00", "2026-11-23T10:00:00Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(Timestamp::parse(input).expect(input).to_string(), output);
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T10:00:00",
            "2026-11-23t10:00:00Z",
            "2026-11-23T10:00:00z",
            "2026-11-23 10:00:00Z",
            "2026-11-23T10:00:60Z",
            "2026-13-01T10:00:00Z",
            "2026-02-30T10:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T10:00:00.1234567891Z",
            "2026-11-23T10:00:00.Z",
            "2026-11-23T10:00:00+24:00",
            "2026-11-23T10:00:00+02:60",
            "0000-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "+02026-11-23T10:00:00Z",
            "2026-11-23T10:00:00,5Z",
        ] {
            assert_eq!(Timestamp::parse(text), Err(InvalidTimestamp), "{text}");
        }
    }

    proptest! {
        #[test]
        fn writing_then_reading_gives_the_same_instant(secs in 0i64..253_402_300_799, nanos in 0u32..1_000_000_000, offset in -1439i32..=1439) {
            let offset = UtcOffset::from_whole_seconds(offset * 60).unwrap();
            let time = OffsetDateTime::from_unix_timestamp(secs).unwrap().replace_nanosecond(nanos).unwrap();
            if let Some(local) = time.checked_to_offset(offset).filter(|t| (0..=9999).contains(&t.year())) {
                let text = Timestamp(local).to_string();
                prop_assert_eq!(Timestamp::parse(&text).unwrap(), Timestamp(local));
                prop_assert_eq!(Timestamp::parse(&text).unwrap().to_string(), text);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = Timestamp::parse(&text);
        }
    }
}
