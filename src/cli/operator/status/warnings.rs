//! What somebody should look at: what health says, and what a person on call would count out themselves.

use serde_json::Value;

use super::super::value::{items, relative, text, time};
use crate::timestamp::Timestamp;

/// Share of the nonce store from which on it is worth a word.
const FILLING: f64 = 0.8;

/// So many seconds before its overlap ends, a rotation is worth a word: verifiers must know the new key by then.
const OVERLAP_ENDS_SOON: i64 = 86_400;

pub(super) fn all(seen: &Value, now: Timestamp) -> Vec<String> {
    let said = items(seen, "/health/warnings").iter().filter_map(|warning| Some(warning.as_str()?.to_owned()));
    let rotations = items(seen, "/rotations").iter().filter_map(|rotation| of_rotation(rotation, now));
    let hidden = ["signer", "rotations", "nonces", "approvals", "blocks", "alerts"].into_iter().filter_map(|part| {
        let problem = text(&seen[part], "/title");
        (!problem.is_empty()).then(|| format!("{part} cannot be shown: {problem}"))
    });
    said.chain(rotations).chain(of_nonces(&seen["nonces"])).chain(hidden).collect()
}

fn of_rotation(rotation: &Value, now: Timestamp) -> Option<String> {
    let (id, old) = (text(rotation, "/rotation_id"), text(rotation, "/old_key_id"));
    let until = time(rotation, "/overlap_until")?;
    match text(rotation, "/status") {
        "overlap_ended" => Some(format!("the overlap of {id} has ended: verification-signer complete {id}")),
        "in_progress" if until.seconds_since(now) < OVERLAP_ENDS_SOON => {
            Some(format!("the overlap of {id} ends {}; {old} is then retired", relative(until, now)))
        }
        _ => None,
    }
}

fn of_nonces(stats: &Value) -> Option<String> {
    let fill = stats["fill"].as_f64()?;
    (fill >= FILLING)
        .then(|| format!("the nonce store is {:.0} % full: verification-signer nonces stats", fill * 100.0))
}
