//! strace on one thread of a running appliance: to count its system calls, to delay them, or to
//! kill the process at one of them.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use super::{eventually, own_token};

/// Lets go of the thread when dropped.
pub struct Tracer(Child);

impl Tracer {
    /// strace with these arguments on the thread whose name begins so.
    pub fn attach(pid: u32, thread: &str, arguments: &[&str]) -> Self {
        // Threads that are in the module may be in a process of their own.
        let inside = own_token::process_of(pid).filter(|_| thread.starts_with("token-"));
        let pid = inside.unwrap_or(pid);
        let tid = thread_of(pid, thread);
        let mut command = Command::new("strace");
        command.args(["-qq", "-p", &tid]).args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
        let mut tracer = Self(command.spawn().unwrap());
        eventually("strace follows the thread", || {
            // The process makes itself untraceable for others.
            assert!(tracer.0.try_wait().unwrap().is_none(), "strace could not attach: run the tests as root");
            let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap();
            let traced = status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"));
            traced.then_some(())
        });
        tracer
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Told to, strace lets go of the thread before it ends; it may have ended already.
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
