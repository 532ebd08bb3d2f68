//! Keys outlive processes, and nothing that happens to a token makes a surprise key.

mod first_key;
mod flicker;
mod impostor;
mod no_surprise_key;
mod restart;
