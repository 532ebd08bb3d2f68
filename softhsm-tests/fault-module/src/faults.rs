//! What happens to a call on its way to the real module.

use std::{
    io::Write,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cryptoki_sys::{CK_FUNCTION_LIST_3_0, CK_RV, CK_SLOT_ID, CK_ULONG, CKR_HOST_MEMORY, CKR_OK, CKR_SESSION_COUNT};

use crate::{
    counts::Counts,
    functions::{self, Function},
    real::real,
    rules::{self, Crash, Gate, Rule},
};

/// Sessions that are open now.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// Makes a call, or not, as the rules say. It is told whether to spoil what it gives.
pub fn through(function: Function, call: impl FnOnce(&CK_FUNCTION_LIST_3_0, bool) -> CK_RV) -> CK_RV {
    count(function);
    let due = rules::due(function as usize);
    let _inside: Vec<_> = due.iter().filter_map(|rule| rule.at_once.as_ref()).map(Inside::enter).collect();
    let begun = Instant::now();
    for rule in &due {
        if let Some(code) = before(rule) {
            return code;
        }
    }
    let mut result = call(&real().functions, due.iter().any(|rule| rule.flip));
    note_sessions(function, result);
    due.iter().filter_map(|rule| rule.takes).for_each(|time| sleep_until(begun + time));
    for rule in &due {
        if let Some(how) = rule.crash_after {
            crash(how);
        }
        result = rule.fail_after.unwrap_or(result);
    }
    result
}

/// As if a device answered then: the kernel is not to add the 50 µs that it may let timers wait for each other.
fn sleep_until(then: Instant) {
    // SAFETY: no pointers; it concerns this thread only.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    thread::sleep(then.saturating_duration_since(Instant::now()));
}

fn before(rule: &Rule) -> Option<CK_RV> {
    if let Some(how) = rule.crash {
        crash(how);
    }
    while rule.hang && rules::is_in_force(rule) {
        thread::sleep(Duration::from_millis(5));
    }
    if let Some(time) = rule.delay {
        thread::sleep(time);
    }
    if rule.eat.is_some_and(|bytes| !eaten(bytes)) {
        return Some(CKR_HOST_MEMORY);
    }
    if rule.close_sessions {
        close_sessions();
    }
    // Trespasses: whether they are let is for the test to see.
    if let Some(path) = &rule.write {
        drop(
            std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .and_then(|mut file| file.write_all(b"planted")),
        );
    }
    if let Some(pid) = &rule.signal {
        drop(std::process::Command::new("/bin/kill").args(["-TERM", pid]).status());
    }
    if rule.sessions.is_some_and(|limit| OPEN.load(Ordering::Relaxed) >= limit) {
        return Some(CKR_SESSION_COUNT);
    }
    rule.fail
}

/// Loses so much memory for good; false when there is none.
fn eaten(bytes: usize) -> bool {
    let mut memory = Vec::<u8>::new();
    let there = memory.try_reserve_exact(bytes).is_ok();
    std::mem::forget(memory);
    there
}

fn crash(how: Crash) -> ! {
    if how == Crash::Segv {
        // SAFETY: none, which is what is asked for: nothing is mapped there.
        unsafe { ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
    }
    std::process::abort()
}

/// A place behind a gate.
struct Inside<'a>(&'a Gate);

impl<'a> Inside<'a> {
    fn enter(gate: &'a Gate) -> Self {
        gate.enter();
        Self(gate)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

fn note_sessions(function: Function, result: CK_RV) {
    match function {
        _ if result != CKR_OK => {}
        Function::C_OpenSession => {
            OPEN.fetch_add(1, Ordering::Relaxed);
        }
        Function::C_CloseSession => {
            // Never below none, whatever the module answers.
            let _ = OPEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| open.checked_sub(1));
        }
        Function::C_CloseAllSessions | Function::C_Finalize => OPEN.store(0, Ordering::Relaxed),
        _ => {}
    }
}

/// C_CloseAllSessions on every slot with a token.
fn close_sessions() {
    let functions = &real().functions;
    let (Some(list), Some(close)) = (functions.C_GetSlotList, functions.C_CloseAllSessions) else { return };
    let mut slots: [CK_SLOT_ID; 64] = [0; 64];
    let mut count: CK_ULONG = 64;
    // SAFETY: there is room for so many.
    if unsafe { list(1, slots.as_mut_ptr(), ptr::addr_of_mut!(count)) } == CKR_OK {
        for slot in &slots[..usize::try_from(count).unwrap_or(0)] {
            // SAFETY: no pointers.
            unsafe { close(*slot) };
        }
    }
    OPEN.store(0, Ordering::Relaxed);
}

fn count(function: Function) {
    static COUNTS: OnceLock<Option<Counts>> = OnceLock::new();
    let counts = COUNTS.get_or_init(|| {
        let path = std::env::var_os("FAULT_COUNTS")?;
        let opened = Counts::open(path.as_ref());
        Some(opened.unwrap_or_else(|error| give_up(&format!("{}: {error}", path.display()))))
    });
    if let Some(counts) = counts {
        counts.add(function as usize);
    }
}

/// A mistake of the test, not a fault that it asked for.
pub fn give_up(why: &str) -> ! {
    eprintln!("fault-module: {why} ({} functions are known)", functions::NAMES.len());
    std::process::abort();
}
