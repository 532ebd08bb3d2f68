//! Lines of keys: in each, one key is active, and is followed by the next.

use std::fmt;

/// Whose keys follow one another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// The signer's: on its primary token, on copies of that, and on whatever token it was moved to.
    Signer,
    /// Those that one token has for itself: the token with this serial.
    Token(String),
}

impl Line {
    /// The serial of the token that has these for itself.
    #[must_use]
    pub fn serial(&self) -> Option<&str> {
        match self {
            Self::Signer => None,
            Self::Token(serial) => Some(serial),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signer => f.write_str("the signer's keys"),
            Self::Token(serial) => write!(f, "the keys of the token {serial}"),
        }
    }
}
