//! What is to go wrong, and when.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{codes, faults::give_up, functions};

/// One line.
pub struct Rule {
    text: String,
    /// The function, or all of them.
    function: Option<usize>,
    pub fail: Option<u64>,
    pub fail_after: Option<u64>,
    pub delay: Option<Duration>,
    pub takes: Option<Duration>,
    pub at_once: Option<Gate>,
    pub sessions: Option<u64>,
    pub hang: bool,
    pub crash: Option<Crash>,
    pub crash_after: Option<Crash>,
    pub close_sessions: bool,
    pub flip: bool,
    pub eat: Option<usize>,
    pub write: Option<PathBuf>,
    pub signal: Option<String>,
    when: When,
    seen: AtomicU64,
    fired: AtomicU64,
}

#[derive(Default)]
struct When {
    at: Option<u64>,
    from: Option<u64>,
    every: Option<u64>,
    times: Option<u64>,
    chance: Option<f64>,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    Abort,
    /// It writes where there is no memory, as a module with a mistake does.
    Segv,
}

impl Crash {
    fn parse(how: &str) -> Option<Self> {
        match how {
            "" => Some(Self::Abort),
            "SEGV" => Some(Self::Segv),
            _ => None,
        }
    }
}

/// Lets so many through at once.
pub struct Gate {
    free: Mutex<u64>,
    freed: Condvar,
}

impl Gate {
    pub fn enter(&self) {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        *self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner) -= 1;
    }

    pub fn leave(&self) {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.freed.notify_one();
    }
}

/// What tells one content of the control file from another.
type Stamp = Option<(u64, i64, i64, u64)>;

/// The rules in force.
struct Book {
    control: Option<PathBuf>,
    /// From the environment: always in force.
    fixed: Vec<Arc<Rule>>,
    current: RwLock<(Stamp, Arc<[Arc<Rule>]>)>,
}

fn book() -> &'static Book {
    static BOOK: OnceLock<Book> = OnceLock::new();
    BOOK.get_or_init(|| {
        let text = env::var("FAULT_RULES").unwrap_or_default();
        let fixed = parse_all(text.split(';'), &[]);
        let current = RwLock::new((None, fixed.clone().into()));
        Book { control: env::var_os("FAULT_CONTROL").map(PathBuf::from), fixed, current }
    })
}

impl Book {
    fn rules(&self) -> Arc<[Arc<Rule>]> {
        if let Some(path) = &self.control {
            let stamp = fs::metadata(path).ok().map(|at| (at.ino(), at.mtime(), at.mtime_nsec(), at.size()));
            let known = self.current.read().unwrap_or_else(PoisonError::into_inner).0;
            if stamp != known {
                self.read_again(stamp);
            }
        }
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).1)
    }

    fn read_again(&self, stamp: Stamp) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let text = self.control.as_ref().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        let mut rules = parse_all(text.lines(), &current.1);
        rules.extend(self.fixed.iter().cloned());
        *current = (stamp, rules.into());
    }
}

/// Rules that stay in force go on counting.
fn parse_all<'a>(lines: impl Iterator<Item = &'a str>, known: &[Arc<Rule>]) -> Vec<Arc<Rule>> {
    lines
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(|line| match known.iter().find(|rule| rule.text == line) {
            Some(rule) => Arc::clone(rule),
            None => Arc::new(Rule::parse(line).unwrap_or_else(|| give_up(&format!("no rule: {line}")))),
        })
        .collect()
}

/// The rules that hold for this call.
pub fn due(function: usize) -> Vec<Arc<Rule>> {
    let rules = book().rules();
    rules.iter().filter(|rule| rule.holds(function)).cloned().collect()
}

/// Whether a rule is still in force.
pub fn is_in_force(rule: &Rule) -> bool {
    book().rules().iter().any(|other| other.text == rule.text)
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let function = match words.next()? {
            "*" => None,
            name => Some(functions::NAMES.iter().position(|known| *known == name)?),
        };
        let mut rule = Self::idle(text, function);
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            rule.add(name, value)?;
        }
        Some(rule)
    }

    fn idle(text: &str, function: Option<usize>) -> Self {
        Self {
            text: text.to_owned(),
            function,
            fail: None,
            fail_after: None,
            delay: None,
            takes: None,
            at_once: None,
            sessions: None,
            hang: false,
            crash: None,
            crash_after: None,
            close_sessions: false,
            flip: false,
            eat: None,
            write: None,
            signal: None,
            when: When::default(),
            seen: AtomicU64::new(0),
            fired: AtomicU64::new(0),
        }
    }

    fn add(&mut self, name: &str, value: &str) -> Option<()> {
        match (name, value) {
            ("hang", "") => self.hang = true,
            ("crash", how) => self.crash = Some(Crash::parse(how)?),
            ("crash-after", how) => self.crash_after = Some(Crash::parse(how)?),
            ("close-sessions", "") => self.close_sessions = true,
            ("flip", "") => self.flip = true,
            ("eat", mebibytes) => self.eat = Some(mebibytes.parse::<usize>().ok()? << 20),
            ("write", path) => self.write = Some(path.into()),
            ("signal", pid) => self.signal = Some(pid.to_owned()),
            ("fail", code) => self.fail = Some(codes::code(code)?),
            ("fail-after", code) => self.fail_after = Some(codes::code(code)?),
            ("delay", time) => self.delay = Some(humantime::parse_duration(time).ok()?),
            ("takes", time) => self.takes = Some(humantime::parse_duration(time).ok()?),
            ("at-once", count) => {
                let free = Mutex::new(count.parse().ok().filter(|count| *count > 0)?);
                self.at_once = Some(Gate { free, freed: Condvar::new() });
            }
            ("sessions", count) => self.sessions = Some(count.parse().ok()?),
            ("at", count) => self.when.at = Some(count.parse().ok()?),
            ("from", count) => self.when.from = Some(count.parse().ok()?),
            ("every", count) => self.when.every = Some(count.parse().ok().filter(|count| *count > 0)?),
            ("times", count) => self.when.times = Some(count.parse().ok()?),
            ("chance", part) => self.when.chance = Some(part.parse().ok()?),
            _ => return None,
        }
        Some(())
    }

    fn holds(&self, function: usize) -> bool {
        if self.function.is_some_and(|wanted| wanted != function) {
            return false;
        }
        let number = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        let When { at, from, every, times, chance } = &self.when;
        at.is_none_or(|at| number == at)
            && from.is_none_or(|from| number >= from)
            && every.is_none_or(|every| number.is_multiple_of(every))
            && chance.is_none_or(|chance| scattered(number) < chance)
            && times.is_none_or(|times| self.fired.fetch_add(1, Ordering::Relaxed) < times)
    }
}

/// A number from 0 to 1 for each call, the same in every run (SplitMix64).
#[allow(clippy::cast_precision_loss, reason = "53 bits are left")]
fn scattered(number: u64) -> f64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}
