//! A token that has come to a standstill: what has no room in a lane's queue is turned away at once, what
//! has is answered within its deadline, and what needs no token goes on.
//!
//! The standstill: pkcs11-spy writes what it sees into a pipe, and nobody reads it.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    appliance::{Answer, Appliance},
    eventually,
    http::{Connection, json_post, request},
    site::Site,
    softhsm::MODULE,
    spy::Spy,
    tool,
};

/// Whoever reads the pipe, or does not.
struct Reader {
    stands: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    fn of(path: &Path) -> Self {
        let (stands, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        // For writing as well, so that it has no end while the module is closed and opened again.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut pipe = File::options().read(true).write(true).custom_flags(flags).open(path).unwrap();
        let (paused, over) = (Arc::clone(&stands), Arc::clone(&ended));
        let thread = thread::spawn(move || {
            let mut buffer = [0; 8192];
            while !over.load(Ordering::Relaxed) {
                if paused.load(Ordering::Relaxed) || pipe.read(&mut buffer).is_err() {
                    thread::sleep(Duration::from_millis(2));
                }
            }
        });
        Self { stands, ended, thread: Some(thread) }
    }

    fn stand_still(&self, still: bool) {
        self.stands.store(still, Ordering::Relaxed);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

/// `token.hung_calls`.
const HUNG: usize = 8;

fn sign_request() -> Vec<u8> {
    let body: Value = json!({ "data": "AAAA", "purpose": "receipt" });
    json_post("/api/v1/sign", &serde_json::to_vec(&body).unwrap())
}

/// So many at once; each answer, and how long it took.
fn all_at_once(appliance: &Appliance, count: usize, bytes: &[u8]) -> Vec<(Answer, Duration)> {
    thread::scope(|scope| {
        let asking: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection::open(&appliance.api);
                    let begun = Instant::now();
                    connection.send(bytes).unwrap();
                    (connection.answer().unwrap().unwrap(), begun.elapsed())
                })
            })
            .collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    })
}

/// All are turned away as busy, at least so many of them sooner than anything that waits for the token.
fn turned_away(what: &str, answers: &[(Answer, Duration)], at_once: usize) {
    for (answer, took) in answers {
        assert_eq!((answer.status, &*answer.problem()), (503, "busy"), "{what}: {}", answer.text());
        assert_eq!(answer.header("retry-after"), "1", "{what}");
        assert!(*took < Duration::from_secs(10), "{what}: {took:?}");
    }
    let quick = answers.iter().filter(|(_, took)| *took < Duration::from_millis(1900)).count();
    assert!(quick >= at_once, "{what}: only {quick} of {} at once", answers.len());
}

#[test]
fn a_token_that_stands_still_keeps_nobody_waiting_longer_than_the_queue_is_long() {
    let site = Site::with_key();
    let pipe = site.path("spied");
    tool::run("mkfifo", &[pipe.to_str().unwrap()], &[]);
    site.edit_config(MODULE, Spy::module());
    site.edit_config("[token]", &format!("[token]\nworkers = 1\nqueue = 4\nhung_calls = {HUNG}"));
    // The lease outlasts the standstill: it is the queue that is looked at here.
    site.edit_config("[http]", "[fleet]\nsingle = true\nlease = \"10s\"\n[http]");
    let site = site.with_module_environment(&[("PKCS11SPY", MODULE.into()), ("PKCS11SPY_OUTPUT", pipe.clone())]);
    let reader = Reader::of(&pipe);
    let appliance = site.serve().unwrap();
    let (sign, key) = (sign_request(), appliance.get("/api/v1/keys/active").ok()["key_id"].clone());
    let look = request("GET", &format!("/api/v1/keys/{}/evidence", key.as_str().unwrap()), &[], b"");
    assert_eq!(all_at_once(&appliance, 1, &sign)[0].0.status, 200);

    reader.stand_still(true);
    let stands = |bytes: &[u8]| {
        eventually("the token stands still", || (all_at_once(&appliance, 1, bytes)[0].0.status == 503).then_some(()));
    };
    stands(&sign);
    // Four in the queue may wait for their deadline, and as many at work as may hang: others take their
    // places, and from the queue. Of the rest nobody waits.
    turned_away("signing", &all_at_once(&appliance, 40, &sign), 40 - 4 - HUNG);
    stands(&look);
    turned_away("looking", &all_at_once(&appliance, 120, &look), 120 - 64 - HUNG);
    assert_eq!((appliance.get("/livez").status, appliance.get("/api/v1/keys").status), (200, 200));
    assert_eq!(appliance.get("/readyz").status, 503);

    reader.stand_still(false);
    eventually("it signs again", || (all_at_once(&appliance, 1, &sign)[0].0.status == 200).then_some(()));
    eventually("it is ready", || (appliance.get("/readyz").status == 200).then_some(()));
    assert_eq!(all_at_once(&appliance, 1, &look)[0].0.status, 200);
    appliance.stop();
}
