//! How many sessions the token bears (ulMaxSessionCount and ulMaxRwSessionCount of C_GetTokenInfo,
//! PKCS#11 v3.1 §3.2), and what follows for the number of workers.

use cryptoki::slot::TokenInfo;

/// Sessions besides those of the workers that sign: one each for lifecycle, ledger, readings and
/// questions, and the anchor that keeps the login.
pub(super) const OTHERS: u64 = 5;

/// The most sessions that one application may have; `None` where there is no limit, or none is told
/// (CK_EFFECTIVELY_INFINITE, CK_UNAVAILABLE_INFORMATION).
pub(super) fn most_sessions(info: &TokenInfo) -> Option<u64> {
    let limits: [Option<u64>; 2] = [info.max_session_count().into(), info.max_rw_session_count().into()];
    limits.into_iter().flatten().min()
}

/// As many workers as wanted, or as the token bears; one in any case, for a limit that is told wrong
/// must not stop everything.
pub(super) fn workers(wanted: usize, most_sessions: Option<u64>) -> usize {
    let Some(most) = most_sessions else { return wanted };
    let room = usize::try_from(most.saturating_sub(OTHERS)).unwrap_or(usize::MAX).max(1);
    if room < wanted {
        tracing::warn!(wanted, workers = room, sessions = most, "the token does not bear a session for every worker");
    }
    wanted.min(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_workers_follows_what_the_token_bears() {
        assert_eq!(workers(8, None), 8);
        assert_eq!(workers(8, Some(1024)), 8);
        assert_eq!(workers(16, Some(16)), 11);
        assert_eq!(workers(2, Some(7)), 2);
        assert_eq!(workers(2, Some(6)), 1);
        assert_eq!(workers(2, Some(1)), 1);
    }
}
