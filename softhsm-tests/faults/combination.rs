//! One code, from one function, without effect or with it: what an appliance makes of it.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::answers::Answer;
use crate::support::{
    appliance::{self, Appliance},
    eventually,
    faults::Faults,
    signer::key,
    site::Site,
};

/// How soon everything must work again.
const SOON: Duration = Duration::from_secs(2);

/// Connections that are made anew one soon after the other are made ever more rarely: after so many
/// faults the appliance starts again.
const FAULTS_A_START: usize = 4;

/// Where it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    Login,
    Find,
    SignInit,
    Sign,
    Generate,
    Create,
}

impl Point {
    fn function(self) -> &'static str {
        match self {
            Self::Login => "C_Login",
            Self::Find => "C_FindObjectsInit",
            Self::SignInit => "C_SignInit",
            Self::Sign => "C_Sign",
            Self::Generate => "C_GenerateKeyPair",
            Self::Create => "C_CreateObject",
        }
    }
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub point: Point,
    pub code: &'static str,
    pub answer: Answer,
    /// The call is made before it fails.
    pub has_effect: bool,
}

/// What faults came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub faults: usize,
    /// The longest time from the end of a fault until requests were made that succeeded.
    slowest: Duration,
    /// The same until they were answered: a generation takes its time, the more so beside other tests.
    answered: Duration,
    /// The most logins during one fault.
    logins: u64,
}

impl Tally {
    pub fn with(self, other: &Self) -> Self {
        Self {
            faults: self.faults + other.faults,
            slowest: self.slowest.max(other.slowest),
            answered: self.answered.max(other.answered),
            logins: self.logins.max(other.logins),
        }
    }
}

/// An appliance on a token that fails, and what is to hold at the end.
pub struct Place {
    /// Dropped before the directory with its log.
    appliance: Option<Appliance>,
    site: Site,
    faults: Faults,
    since_start: usize,
    tally: Tally,
}

impl Place {
    pub fn new(point: Point) -> Self {
        let (site, faults) = Site::with_key().faulty();
        // Whatever fails while the ledger is read shows at once.
        let quick = if point == Point::Find { "lease = \"300ms\"\nrefresh = \"100ms\"\n" } else { "" };
        site.edit_config("[http]", &format!("[fleet]\nsingle = true\n{quick}[http]"));
        site.edit_config("[key_policy]", "[key_policy]\nmaximum_pending = 1000");
        let appliance = Some(site.serve().unwrap());
        Self { site, faults, appliance, since_start: 0, tally: Tally::default() }
    }

    fn appliance(&self) -> &Appliance {
        self.appliance.as_ref().unwrap()
    }

    fn start_again(&mut self) {
        self.faults.clear();
        drop(self.appliance.take());
        self.appliance = Some(self.site.serve().unwrap());
        self.since_start = 0;
    }

    fn logins(&self) -> u64 {
        self.faults.calls("C_Login")
    }

    fn initialised(&self) -> u64 {
        self.faults.calls("C_Initialize")
    }

    fn signs(&self) -> bool {
        let answer = self.appliance().try_attest();
        assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
        let signed = answer.status == 200;
        assert!(!signed || answer.json()["issuer"]["key_id"] == key(1), "{}", answer.text());
        signed
    }

    fn generate(&self) -> appliance::Answer {
        self.appliance().post("/api/v1/keys", &json!({ "initiated_by": "ops-team" }))
    }

    /// Lets it fail, and sees it pass.
    pub fn suffer(&mut self, fault: Fault) {
        if self.since_start == FAULTS_A_START {
            self.start_again();
        }
        self.since_start += 1;
        let (logins, pid) = (self.logins(), self.appliance().pid());
        match fault.point {
            Point::Login => self.suffer_at_login(fault),
            Point::Find => self.suffer_at_find(fault),
            Point::SignInit | Point::Sign => self.suffer_at_signing(fault),
            Point::Generate | Point::Create => self.suffer_at_generation(fault),
        }
        if self.appliance().pid() == pid {
            self.recovers(fault);
        }
        self.tally.faults += 1;
        self.tally.logins = self.tally.logins.max(self.logins() - logins);
    }

    fn fail(&self, fault: Fault, when: &str) {
        let how = if fault.has_effect { "fail-after" } else { "fail" };
        self.faults.set(&format!("{} {how}={} {when}", fault.point.function(), fault.code));
    }

    /// The connection is made anew, and only then.
    fn is_reopened(&self, fault: Fault, initialised: u64) {
        match fault.answer {
            Answer::Reopen => eventually(&format!("{fault:?}: the connection is made anew"), || {
                self.signs();
                (self.initialised() > initialised).then_some(())
            }),
            Answer::FreshSession => {}
            Answer::Later | Answer::PinRefused | Answer::NoPin | Answer::Configuration | Answer::Refusal => {
                assert_eq!(self.initialised(), initialised, "{fault:?}: nothing is torn down");
            }
        }
    }

    fn suffer_at_signing(&self, fault: Fault) {
        let (logins, initialised) = (self.logins(), self.initialised());
        if fault.answer == Answer::FreshSession {
            self.fail(fault, "times=1");
            assert!(self.signs(), "{fault:?}: nobody notices");
            assert_eq!((self.logins(), self.initialised()), (logins, initialised), "{fault:?}");
        }
        self.fail(fault, "");
        assert!(!self.signs(), "{fault:?}: nothing is signed");
        self.is_reopened(fault, initialised);
    }

    /// The ledger is read again and again, and nothing is signed by an old reading.
    fn suffer_at_find(&self, fault: Fault) {
        let (logins, initialised) = (self.logins(), self.initialised());
        let found = self.faults.calls("C_FindObjectsInit");
        if fault.answer == Answer::FreshSession {
            self.fail(fault, "times=1");
            eventually("the ledger is read", || (self.faults.calls("C_FindObjectsInit") > found + 2).then_some(()));
            assert!(self.signs(), "{fault:?}: nobody notices");
            assert_eq!((self.logins(), self.initialised()), (logins, initialised), "{fault:?}");
        }
        self.fail(fault, "");
        eventually(&format!("{fault:?}: signing stops"), || (!self.signs()).then_some(()));
        self.is_reopened(fault, initialised);
    }

    /// A session is lost, and the login of the new connection fails.
    fn suffer_at_login(&mut self, fault: Fault) {
        let logins = self.logins();
        let how = if fault.has_effect { "fail-after" } else { "fail" };
        let login = format!("C_Login {how}={}", fault.code);
        self.faults.set(&format!("{login}\nC_SignInit fail=CKR_DEVICE_ERROR"));
        eventually("the connection is made anew", || {
            assert!(!self.signs(), "{fault:?}");
            (self.logins() > logins).then_some(())
        });
        self.faults.set(&login);
        // A login that has been made is one, whoever else says so.
        let harmless = fault.has_effect && fault.code == "CKR_USER_ALREADY_LOGGED_IN";
        assert_eq!(self.signs(), harmless, "{fault:?}");
        assert_eq!(self.logins(), logins + 1, "{fault:?}");
        if fault.answer == Answer::PinRefused {
            self.faults.clear();
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(300) {
                assert!(!self.signs(), "{fault:?}");
            }
            assert_eq!(self.logins(), logins + 1, "{fault:?}: the PIN was tried once");
            assert!(self.appliance().log().contains("is not tried again"), "{fault:?}");
            self.appliance().signal("KILL");
            self.appliance.take().unwrap().wait();
            if fault.code == "CKR_PIN_INCORRECT"
                || fault.code.starts_with("CKR_PIN_INVALID")
                || fault.code == "CKR_PIN_LEN_RANGE"
            {
                assert!(self.site.serve().is_err(), "{fault:?}: a restart does not try it again");
                assert_eq!(self.logins(), logins + 1, "{fault:?}: the PIN was tried once");
                // The PIN was right all along, as only a person can know.
                std::fs::remove_file(self.site.path("state/pin-refused.json")).unwrap();
            }
            self.start_again();
        }
    }

    /// Made once, or not at all, whatever the code says; what is left over goes with the next change.
    fn suffer_at_generation(&self, fault: Fault) {
        let initialised = self.initialised();
        // An intent, a certificate and the ledger's record are stored, in this order.
        let which = self.tally.faults % 3 + 1;
        self.fail(fault, &if fault.point == Point::Create { format!("at={which}") } else { String::new() });
        let answer = self.generate();
        // A record that was stored after all is read back.
        let may_succeed = fault.point == Point::Create && fault.has_effect && which == 3;
        let is_as_expected = matches!(answer.status, 409 | 503) || may_succeed && answer.status == 201;
        assert!(is_as_expected, "{fault:?}: {} {}", answer.status, answer.text());
        if fault.answer != Answer::Reopen {
            assert_eq!(self.initialised(), initialised, "{fault:?}: nothing is torn down");
        }
    }

    fn recovers(&mut self, fault: Fault) {
        self.faults.clear();
        let begun = Instant::now();
        let mut asked = succeeds(begun, &format!("{fault:?}: a signature"), || self.signs());
        if matches!(fault.point, Point::Generate | Point::Create) {
            asked = succeeds(begun, &format!("{fault:?}: a generation"), || self.generate().status == 201);
        }
        self.tally.slowest = self.tally.slowest.max(asked);
        self.tally.answered = self.tally.answered.max(begun.elapsed());
    }

    /// The keys on the token are those of the ledger, each once, and one of them is active.
    pub fn conclude(self) -> Tally {
        let states = self.appliance().states();
        let expected = states.len();
        assert_eq!(states.iter().filter(|state| *state == "active").count(), 1, "{states:?}");
        assert_eq!(self.site.pkcs11_tool().key_objects(), (expected, expected));
        assert_eq!(self.site.pkcs11_tool().audit_key().len(), 2);
        self.tally
    }
}

/// Asks until it succeeds; how long after `begun` that was asked.
fn succeeds(begun: Instant, what: &str, ask: impl Fn() -> bool) -> Duration {
    loop {
        let asked = begun.elapsed();
        assert!(asked < SOON, "{what} is not made {SOON:?} after the end of the fault");
        if ask() {
            return asked;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
