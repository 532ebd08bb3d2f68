//! Making a token: for `dev` and for tests, on SoftHSM2 only. A production token is initialised
//! by its security officer with the vendor's tools.

use std::path::Path;

use cryptoki::session::UserType;
use secrecy::SecretString;

use super::{CallError, Error, TokenIdentity, TokenUri, module};

/// Initialises the first free slot with `label` and both PINs. Nothing is put on it.
///
/// C_Finalize follows, so that the module can be opened afresh: SoftHSM2 gives the new token
/// another slot number.
pub fn initialise_token(
    module: &Path,
    label: &str,
    so_pin: &SecretString,
    user_pin: &SecretString,
) -> Result<(), Error> {
    let context = module::load(module)?;
    let make = || -> Result<(), Error> {
        let free = context
            .get_slots_with_token()?
            .into_iter()
            .find(|slot| context.get_token_info(*slot).is_ok_and(|info| !info.token_initialized()))
            .ok_or_else(|| CallError::nonsense("no free slot for a new token"))?;
        context.init_token(free, so_pin, label)?;
        let session = context.open_rw_session(free)?;
        session.login(UserType::So, Some(so_pin))?;
        session.init_pin(user_pin)?;
        Ok(session.close()?)
    };
    let made = make();
    context.finalize()?;
    made
}

/// The tokens that the module shows, without a login.
pub fn present_tokens(module: &Path) -> Result<Vec<TokenIdentity>, Error> {
    let context = module::load(module)?;
    let mut tokens = Vec::new();
    for slot in context.get_slots_with_token()? {
        if let Ok(info) = context.get_token_info(slot)
            && info.token_initialized()
        {
            tokens.push(TokenIdentity::of(&info));
        }
    }
    context.finalize()?;
    Ok(tokens)
}

/// The URI of the only token with this label, if there is exactly one.
#[must_use]
pub fn only_token(tokens: &[TokenIdentity], label: &str) -> Option<TokenUri> {
    let mut matching = tokens.iter().filter(|token| token.label == label);
    match (matching.next(), matching.next()) {
        (Some(token), None) => Some(token.uri()),
        _ => None,
    }
}
