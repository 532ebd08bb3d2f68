//! The process that holds the PKCS#11 module for an appliance.

use std::fs;

use super::{appliance::Appliance, eventually, tool};

/// The process that holds the module for the process `pid`, if it has one.
pub fn process_of(pid: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut held = processes.filter(|process: &u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // "pid (comm) state ppid …"
        let Some((begin, rest)) = stat.rsplit_once(") ") else { return false };
        let mut fields = rest.split(' ');
        let alive = fields.next() != Some("Z");
        alive && begin.ends_with("(token-process") && fields.next() == Some(&pid.to_string())
    });
    held.next()
}

impl Appliance {
    /// The process that holds its module.
    pub fn token_process(&self) -> u32 {
        eventually("a process holds the module", || process_of(self.pid()))
    }

    /// Sends a signal to the process that holds its module; which that was.
    pub fn signal_token_process(&self, signal: &str) -> u32 {
        let pid = self.token_process();
        tool::run("kill", &["-s", signal, &pid.to_string()], &[]);
        pid
    }

    /// Waits until another process than this holds the module.
    pub fn another_token_process(&self, than: u32) -> u32 {
        eventually("another process holds the module", || process_of(self.pid()).filter(|pid| *pid != than))
    }
}
