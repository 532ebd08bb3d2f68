//! When to kill: after a random delay, or at a system call.

use std::{path::Path, process::Command, time::Duration};

use crate::support::tracer::Tracer;

/// System calls after which files are not what they were.
const CALLS: &str = "openat,write,ftruncate,?unlink,unlinkat,?rename,renameat,?mkdir,fsync,fdatasync";

/// The threads in which lifecycle operations change files.
pub const THREADS: [&str; 3] = ["token-lifecycle", "token-ledger", "audit"];

/// When the process is killed.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    After(Duration),
    /// Before the thread's call of [`CALLS`] with this number.
    Call {
        thread: &'static str,
        number: usize,
    },
}

/// A random number below `limit`.
pub fn random(limit: u64) -> u64 {
    getrandom::u64().unwrap() % limit.max(1)
}

/// A random part of `whole`, and a little more than it now and then.
pub fn random_part(whole: Duration) -> Duration {
    let micros = u64::try_from(whole.as_micros()).unwrap();
    Duration::from_micros(random(micros + micros / 20))
}

/// strace, killing the process at the call with this number of one of its threads.
pub fn kill_at_call(pid: u32, thread: &str, number: usize) -> Tracer {
    Tracer::attach(pid, thread, &["-e", &format!("trace={CALLS}"), "-e", &injection(number)])
}

/// strace, writing the thread's calls to a file.
pub fn record_calls(pid: u32, thread: &str, file: &Path) -> Tracer {
    Tracer::attach(pid, thread, &["-e", &format!("trace={CALLS}"), "-o", file.to_str().unwrap()])
}

/// A command that runs the program and kills it when any of its threads reaches this call.
pub fn killed_at_call(program: &str, number: usize) -> Command {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={CALLS}"), "-e", &injection(number)]);
    command.arg(program);
    command
}

fn injection(number: usize) -> String {
    format!("inject={CALLS}:signal=KILL:when={number}")
}
