//! The threads of a lane. Each owns a session; the place of one whose call does not end is filled, up to
//! a bound.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use super::{Error, module::Module, session::TokenSession};

/// What a lane's queue holds.
pub(super) enum Job {
    Call(Call),
    /// Ends the worker that takes it.
    Stop,
}

/// A call, and when nobody waits for it any more.
pub(super) struct Call {
    pub latest: Instant,
    pub run: Run,
}

/// Makes a call, or hears why it is not made.
pub(super) type Run = Box<dyn FnOnce(Result<&mut TokenSession, Error>) + Send>;

/// Whether the place of a worker is filled as soon as its call takes suspiciously long, or only when the
/// call is given up, because its calls must not run beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calls {
    SideBySide,
    OneByOne,
}

pub(super) struct Crew {
    name: &'static str,
    wanted: usize,
    calls: Calls,
    module: Arc<Module>,
    waiting: Receiver<Job>,
    members: Mutex<Vec<Member>>,
    /// How long a call takes, in nanoseconds: a moving average.
    usual: AtomicU64,
    watcher: OnceLock<Thread>,
    watcher_rests: AtomicBool,
    is_stopping: AtomicBool,
}

struct Member {
    place: Arc<Place>,
    thread: JoinHandle<()>,
}

/// What a worker does now.
#[derive(Default)]
struct Place(Mutex<Doing>);

#[derive(Default)]
struct Doing {
    call: Option<Running>,
    /// Another works in its place: it ends when its call does.
    is_filled: bool,
}

struct Running {
    since: Instant,
    latest: Instant,
    is_given_up: bool,
}

/// How often calls in progress are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How many looks find nothing before it rests.
const LOOKS_BEFORE_REST: u32 = 10;

/// A call is suspicious that takes so many times longer than calls usually do, and at least this long.
const SUSPICIOUS: u32 = 10;
const AT_LEAST: Duration = Duration::from_millis(20);

/// What is assumed until calls have been made: the first ones open sessions and look for keys.
const USUAL_AT_FIRST: Duration = Duration::from_millis(100);

impl Crew {
    /// Starts `wanted` workers, and whoever watches them.
    pub fn start(
        name: &'static str,
        wanted: usize,
        calls: Calls,
        module: &Arc<Module>,
        waiting: Receiver<Job>,
    ) -> io::Result<Arc<Self>> {
        let crew = Arc::new(Self {
            name,
            wanted,
            calls,
            module: Arc::clone(module),
            waiting,
            members: Mutex::default(),
            usual: AtomicU64::new(nanoseconds(USUAL_AT_FIRST)),
            watcher: OnceLock::new(),
            watcher_rests: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
        });
        crew.fill_up(&mut crew.members.lock())?;
        let watching = Arc::clone(&crew);
        let watcher = thread::Builder::new().name("token-watch".into()).spawn(move || watching.watch())?;
        crew.watcher.get_or_init(|| watcher.thread().clone());
        Ok(crew)
    }

    fn fill_up(self: &Arc<Self>, members: &mut Vec<Member>) -> io::Result<()> {
        while members.iter().filter(|member| !member.place.0.lock().is_filled).count() < self.wanted {
            let place = Arc::<Place>::default();
            let (crew, its) = (Arc::clone(self), Arc::clone(&place));
            let thread = thread::Builder::new().name(self.name.to_owned()).spawn(move || crew.work(&its))?;
            members.push(Member { place, thread });
        }
        Ok(())
    }

    fn work(&self, place: &Place) {
        let mut session = TokenSession::new(Arc::clone(&self.module));
        while let Ok(Job::Call(call)) = self.waiting.recv() {
            place.0.lock().call = Some(Running { since: Instant::now(), latest: call.latest, is_given_up: false });
            self.wake_watcher();
            (call.run)(Ok(&mut session));
            if self.has_ended(place) {
                break;
            }
        }
    }

    /// Notes that the call of this worker has ended; true when the worker is not needed any more.
    fn has_ended(&self, place: &Place) -> bool {
        let mut doing = place.0.lock();
        match doing.call.take() {
            Some(Running { is_given_up: true, .. }) => self.module.hung().one_less(),
            Some(Running { since, .. }) => {
                let usual = self.usual.load(Ordering::Relaxed);
                self.usual.store(usual - usual / 8 + nanoseconds(since.elapsed()) / 8, Ordering::Relaxed);
            }
            None => {}
        }
        doing.is_filled
    }

    fn wake_watcher(&self) {
        if self.watcher_rests.swap(false, Ordering::SeqCst)
            && let Some(watcher) = self.watcher.get()
        {
            watcher.unpark();
        }
    }

    /// Looks at calls in progress, and rests when there have been none for some looks: calls that follow each
    /// other do not each wake it.
    fn watch(self: Arc<Self>) {
        let mut idle = 0;
        while !self.is_stopping.load(Ordering::SeqCst) {
            idle = if self.look() { 0 } else { idle + 1 };
            if idle < LOOKS_BEFORE_REST {
                thread::sleep(LOOK);
                continue;
            }
            idle = 0;
            self.watcher_rests.store(true, Ordering::SeqCst);
            // A call that began before it was said that the watcher rests would not have woken it.
            if !self.look() && !self.is_stopping.load(Ordering::SeqCst) {
                thread::park();
            }
        }
    }

    /// Whether a call is in progress.
    fn look(self: &Arc<Self>) -> bool {
        let mut members = self.members.lock();
        members.retain(|member| !member.thread.is_finished());
        let away = members.len().saturating_sub(self.wanted);
        let mut room = self.module.hung().bound().saturating_sub(away);
        let mut is_busy = false;
        for member in members.iter() {
            let mut doing = member.place.0.lock();
            let Some(call) = &mut doing.call else { continue };
            is_busy = true;
            let (now, elapsed) = (Instant::now(), call.since.elapsed());
            if now > call.latest && !call.is_given_up {
                call.is_given_up = true;
                self.module.hung().one_more(self.name, elapsed);
            }
            let is_suspicious = self.calls == Calls::SideBySide && elapsed > self.patience();
            if (call.is_given_up || is_suspicious) && !doing.is_filled && room > 0 {
                doing.is_filled = true;
                room -= 1;
            }
        }
        if !self.is_stopping.load(Ordering::SeqCst)
            && let Err(error) = self.fill_up(&mut members)
        {
            tracing::error!(%error, lane = self.name, "a worker that hangs could not be replaced");
        }
        is_busy
    }

    fn patience(&self) -> Duration {
        (Duration::from_nanos(self.usual.load(Ordering::Relaxed)) * SUSPICIOUS).max(AT_LEAST)
    }

    /// Nobody is replaced any more; how many workers must be told to stop.
    pub fn no_more(&self) -> usize {
        let members = self.members.lock();
        self.is_stopping.store(true, Ordering::SeqCst);
        members.len()
    }

    /// Waits until every worker has ended, or only such are left whose calls were given up; true when
    /// every one has.
    pub fn ended_by(&self, latest: Instant) -> bool {
        if let Some(watcher) = self.watcher.get() {
            watcher.unpark();
        }
        let hangs = |member: &Member| member.place.0.lock().call.as_ref().is_some_and(|call| call.is_given_up);
        loop {
            let mut members = self.members.lock();
            members.retain(|member| !member.thread.is_finished());
            if members.iter().all(hangs) || Instant::now() > latest {
                return members.is_empty();
            }
            drop(members);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
