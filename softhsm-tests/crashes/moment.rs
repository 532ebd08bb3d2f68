//! When to kill: after a random delay, or at a system call.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::support::eventually;

/// System calls after which files are not what they were.
const CALLS: &str = "openat,write,ftruncate,?unlink,unlinkat,?rename,renameat,?mkdir,fsync,fdatasync";

/// The threads in which lifecycle operations change files.
pub const THREADS: [&str; 2] = ["token-lifecycle", "audit"];

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
    Tracer::attach(pid, thread, &["-e".into(), injection(number)])
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

/// strace on one thread.
pub struct Tracer(Child);

impl Tracer {
    fn attach(pid: u32, thread: &str, more: &[String]) -> Self {
        let tid = thread_of(pid, thread);
        let mut command = Command::new("strace");
        command.args(["-qq", "-p", &tid, "-e", &format!("trace={CALLS}")]).args(more);
        // The process makes itself untraceable for others: only root may attach to it.
        let mut tracer = Self(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        eventually("strace follows the thread (it must run as root)", || {
            if tracer.0.try_wait().unwrap().is_some() {
                panic!("strace could not attach: run the tests as root");
            }
            let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap();
            let traced = status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"));
            traced.then_some(())
        });
        tracer
    }

    /// Writes the thread's calls to a file from now on.
    pub fn record(pid: u32, thread: &str, file: &Path) -> Self {
        Self::attach(pid, thread, &["-o".into(), file.to_str().unwrap().into()])
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Told to, strace lets go of the thread before it ends.
        let _ = Command::new("kill").args(["-s", "TERM", &self.0.id().to_string()]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

fn thread_of(pid: u32, name: &str) -> String {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let found = threads.map(|thread| thread.unwrap().path()).find(|path| {
        let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
        comm.starts_with(name)
    });
    found.unwrap_or_else(|| panic!("no thread {name}")).file_name().unwrap().to_str().unwrap().to_owned()
}
