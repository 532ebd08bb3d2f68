//! Nonces that clients bring: when one may be spent for the first time. The same rule for every store.
//!
//! A store that did not issue a nonce cannot tell a new one from one that it has forgotten. So a
//! request with a nonce of its own states when it was made (`issued_at`), is good for a short while
//! after that only, and is refused when it was made before the *floor*: the instant up to which the
//! store may have forgotten anything. The promise is about the request: a nonce and its `issued_at`
//! together are accepted once. (As long as the nonce is remembered, which is longer than the
//! request is good for, it is refused with any other `issued_at` too.)
//!
//! Nonces that were issued here are marked ([`NonceValue::was_issued`]) and never taken for brought ones:
//! they may be forgotten at any time, and their `issued_at` may lie further ahead.

use std::time::Duration;

use super::{Refusal, Use};
use crate::timestamp::Timestamp;

/// How far ahead of our clock `issued_at` may lie.
pub(super) const AHEAD: Duration = Duration::from_secs(1);

/// Why a first use is refused now. `latest` is the latest instant that our clock has ever shown.
pub(super) fn refusal(
    use_: &Use,
    now: Timestamp,
    latest: Timestamp,
    window: Duration,
    floor: Timestamp,
) -> Option<Refusal> {
    // Left out it would be now, and so a different request each time.
    if !use_.timestamp_stated || use_.timestamp > now.plus(AHEAD) {
        Some(Refusal::InvalidTimestamp)
    } else if use_.timestamp.plus(window) < latest {
        Some(Refusal::Expired)
    } else if use_.timestamp <= floor {
        Some(Refusal::StoreFailover)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nonce::contract::{now, use_};

    #[test]
    fn only_what_was_made_lately_and_after_the_floor_is_taken() {
        let window = Duration::from_secs(120);
        let at = |seconds: i64| Use { timestamp: now().plus_seconds(seconds), timestamp_stated: true, ..use_() };
        let floor = now().plus_seconds(-60);
        let judge = |use_: &Use, floor| refusal(use_, now(), now(), window, floor);
        for seconds in [-59, 0, 1] {
            assert_eq!(judge(&at(seconds), floor), None, "{seconds}");
        }
        assert_eq!(judge(&at(-60), floor), Some(Refusal::StoreFailover));
        assert_eq!(judge(&at(2), floor), Some(Refusal::InvalidTimestamp));
        assert_eq!(judge(&Use { timestamp_stated: false, ..at(0) }, floor), Some(Refusal::InvalidTimestamp));
        let long_ago = now().plus_seconds(-1000);
        assert_eq!(judge(&at(-120), long_ago), None);
        assert_eq!(judge(&at(-121), long_ago), Some(Refusal::Expired));
        // A clock that was set back does not make it young again.
        assert_eq!(refusal(&at(-121), now().plus_seconds(-60), now(), window, long_ago), Some(Refusal::Expired));
    }
}
