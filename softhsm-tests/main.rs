//! Tests against the real thing: SoftHSM2, pkcs11-tool, openssl, and the binary itself. One token
//! a test, nothing serialised. A tool that is missing is a failure, never a skip.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod appliance;
mod architecture;
mod audit;
mod backup;
mod bad_input;
mod bench_command;
mod certificates;
mod console;
mod continuity;
mod crashes;
mod doctor;
mod documents;
mod fault_module;
mod faults;
mod fleet;
mod front_door;
mod generated_requests;
mod independent;
mod isolation;
mod lifecycle;
mod limits;
mod main_job;
mod merkle;
mod modules;
mod nonce_store;
mod operator;
mod pin;
mod readme;
mod recovery;
mod retries;
mod soak;
mod standby;
mod support;
mod token_objects;
mod wycheproof;
