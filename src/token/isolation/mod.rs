//! The PKCS#11 module in a process of its own.
//!
//! A call into a module cannot be cancelled, and C_Finalize waits for it or crashes; a module that
//! crashes takes its process with it. So `serve` loads none: it starts this same program once more
//! (executed, not forked) and asks it over a socket pair. That process holds the module, its sessions and
//! its login, and runs what `serve` would run itself without isolation: lanes, recovery, the decision for
//! each CKR code. When it hangs or crashes it is killed, and another takes its place.
//!
//! | | |
//! |---|---|
//! | [`wire`] | the frames |
//! | [`line`] | the calls of one process, answered and not |
//! | [`keeper`] | starts it, watches it, starts the next |
//! | [`relief`] | another takes over while it still works |
//! | [`child`] | that process itself |
//! | [`outbox`] | its answers |
//! | [`sandbox`] | what it gives up first |
//!
//! **What it costs** a signature: a frame each way and the threads that wake for it. Under load one system
//! call carries many frames. `BENCH_ISOLATION=1 cargo bench --bench throughput`, the whole service on two cores
//! that others used as well, against the module in the appliance:
//!
//! | callers | rate, two rounds | CPU an attestation |
//! |---|---|---|
//! | 1 | 0.93, 1.09 | 1.11, 1.31 |
//! | 4 | 1.42, 0.95 | 1.05, 1.17 |
//! | 16 | 0.79, 0.77 | 1.16, 1.16 |
//!
//! So it costs some 16 % of CPU, and a fifth of the rate where no core is idle, with a token that signs in 50 µs;
//! a real one takes milliseconds, and the share vanishes. It is the default all the same: nothing else bounds a
//! call that hangs, and nothing else survives a module that crashes.
//!
//! **The PIN** is read by the appliance, when the process has found the token and asks for it, goes over
//! the socket, and is wiped on both sides. A process that was killed never counts as a refused PIN; one
//! that was refused is remembered by the appliance ([`super::pin`]).
//!
//! **Calls that hang** keep their threads for good. Each worker that hangs is replaced in the same process, up to
//! `token.hung_calls` of them; when half as many hang, the next process takes over ([`relief`]). One call in a
//! hundred hanging, the others' p99 stays within twice its quiet value (`softhsm-tests/faults/hung.rs`).
//!
//! **Calls in progress** when the process ends: what changes nothing is asked once more of the next one,
//! within its deadline (a signature nobody has seen may be made again); what may have changed something is
//! [`Error::Unanswered`](super::Error::Unanswered), like a deadline that has passed.

pub mod child;
mod keeper;
mod line;
mod outbox;
mod process;
mod relief;
mod remote;
mod sandbox;
mod wire;

pub(super) use remote::Remote;
