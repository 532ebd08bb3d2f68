//! Good credentials and bad ones.
