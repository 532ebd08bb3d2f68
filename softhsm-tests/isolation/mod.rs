//! The PKCS#11 module in a process of its own: whatever becomes of that process, the appliance goes on,
//! and what it answers is true.

mod boundaries;
mod changes;
mod crash;
mod hang;
mod login;
mod memory;
mod once;
