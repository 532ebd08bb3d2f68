//! What the token does wrong, what we make of it, and that it passes: every code of the standard at
//! every call that matters, calls that hang, sessions that are gone.

mod answers;
mod combination;
mod hung;
mod load;
mod sweep;
