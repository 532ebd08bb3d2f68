//! What a module and its token say of themselves to whoever does not log in.

use cryptoki::slot::TokenInfo;

use super::{
    Config, Error, PinProblem, TokenIdentity, capacity, mechanism,
    module::{find_token, load, pin_problem},
};
use crate::key::Algorithm;

/// A module that was loaded and initialized.
#[derive(Debug)]
pub struct Look {
    /// Who made it, and its version.
    pub library: String,
    pub token: Result<Seen, Error>,
}

/// The token that the configuration names.
#[derive(Debug)]
pub struct Seen {
    pub identity: TokenIdentity,
    /// What keeps the PIN from being tried.
    pub pin_problem: Option<PinProblem>,
    /// A wrong PIN was tried since the last good login.
    pub pin_was_wrong: bool,
    pub write_protected: bool,
    /// The most sessions that one application may have, where the token says so.
    pub most_sessions: Option<u64>,
    /// Sessions that this configuration wants.
    pub wanted_sessions: u64,
    /// Free and total bytes for private objects, where the token says so.
    pub room: Option<(usize, usize)>,
    /// Algorithms whose mechanisms the token lists; which curves it knows, only a login tells.
    pub algorithms: Vec<Algorithm>,
}

/// Looks, and leaves the process as if the module had never been loaded. No PIN is read or tried.
pub fn look(config: &Config) -> Result<Look, Error> {
    let context = load(&config.module)?;
    let library = context.get_library_info().map(|info| {
        format!(
            "{} {} {}, PKCS#11 {}",
            info.manufacturer_id().trim_end(),
            info.library_description().trim_end(),
            info.library_version(),
            info.cryptoki_version()
        )
    });
    let token = find_token(&context, &config.uri).and_then(|(slot, info)| {
        let listed = context.get_mechanism_list(slot)?;
        let offered = |algorithm: &Algorithm| listed.contains(&mechanism::allowed(*algorithm));
        Ok(Seen::new(config, &info, Algorithm::ALL.into_iter().filter(offered).collect()))
    });
    // A module that cannot even end has said what it had to say.
    let _ = context.finalize();
    Ok(Look { library: library.unwrap_or_else(|error| format!("C_GetInfo: {error}")), token })
}

impl Seen {
    fn new(config: &Config, info: &TokenInfo, algorithms: Vec<Algorithm>) -> Self {
        Self {
            identity: TokenIdentity::of(info),
            pin_problem: pin_problem(info),
            pin_was_wrong: info.user_pin_count_low(),
            write_protected: info.write_protected(),
            most_sessions: capacity::most_sessions(info),
            wanted_sessions: capacity::OTHERS.saturating_add(config.workers as u64),
            // Some modules tell nonsense (0 of 0).
            room: info.free_private_memory().zip(info.total_private_memory()).filter(|(_, total)| *total > 0),
            algorithms,
        }
    }
}
