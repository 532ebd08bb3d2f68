//! The fault module does what it is told, and nothing else.

use std::{
    process::Command,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    slot::Slot,
};
use fault_module::CODES;

use crate::support::{
    eventually,
    faults::Faults,
    site::Site,
    softhsm::{PIN, SoftHsm},
    tool,
};

/// The P-256 curve, as CKA_EC_PARAMS.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Names the token to the inner process.
const DIRECTORY: &str = "FAULT_TEST_DIRECTORY";

struct Bench {
    module: Pkcs11,
    slot: Slot,
    session: Session,
    key: ObjectHandle,
    faults: Faults,
}

impl Bench {
    fn open() -> Self {
        let faults = Faults::new(std::env::var_os(DIRECTORY).unwrap().as_ref());
        let module = Pkcs11::new(Faults::module()).unwrap();
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
        let slot = module.get_slots_with_initialized_token().unwrap().remove(0);
        let session = module.open_rw_session(slot).unwrap();
        session.login(UserType::User, Some(&PIN.into())).unwrap();
        let public = [Attribute::EcParams(P256.to_vec()), Attribute::Token(true)];
        let private = [Attribute::Token(true), Attribute::Sign(true)];
        let (_, key) = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
        Self { module, slot, session, key, faults }
    }

    /// The codes of so many signatures in turn, in sessions of their own; nothing where it succeeded.
    fn codes(&self, count: usize) -> Vec<Option<RvError>> {
        let one = |_| {
            let session = self.module.open_rw_session(self.slot).unwrap();
            sign(&session, self.key).err().map(|error| match error {
                Error::Pkcs11(code, _) => code,
                other => panic!("{other}"),
            })
        };
        (0..count).map(one).collect()
    }

    fn private_keys(&self) -> usize {
        self.session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap().len()
    }
}

fn sign(session: &Session, key: ObjectHandle) -> Result<Vec<u8>, Error> {
    session.sign(&Mechanism::Ecdsa, key, &[7; 32])
}

/// Runs `calls` in a process of its own, since the module reads its environment once.
fn alone(test: &str, calls: impl FnOnce(&Bench)) {
    if std::env::var_os(DIRECTORY).is_some() {
        return calls(&Bench::open());
    }
    let token = SoftHsm::new();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("fault_module::{test}"), "--nocapture"])
        .env(DIRECTORY, token.path())
        .env("SOFTHSM2_CONF", token.conf())
        .envs(Faults::new(token.path()).environment())
        .output()
        .unwrap();
    let text = tool::text(&output.stdout) + &tool::text(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{test} in its own process: {text}");
}

#[test]
fn every_code_is_returned_as_it_is() {
    alone("every_code_is_returned_as_it_is", |bench| {
        assert_eq!(CODES.len(), 104);
        for (name, code) in CODES {
            bench.faults.set(&format!("C_SignInit fail={name} times=1"));
            let failed = bench.codes(2);
            let returned = failed[0].unwrap_or_else(|| panic!("{name} was not returned"));
            // What the crate has no name for it gives as a number.
            match returned {
                RvError::UnknownErrorCode(number) | RvError::VendorDefined(number) => assert_eq!(number, *code),
                named => {
                    let written = name.trim_start_matches("CKR").replace('_', "").to_lowercase();
                    assert_eq!(format!("{named:?}").to_lowercase(), written);
                }
            }
            assert_eq!(failed[1], None, "{name}: once");
        }
    });
}

#[test]
fn it_fails_when_it_is_told_to() {
    alone("it_fails_when_it_is_told_to", |bench| {
        let fails = |rule: &str| -> Vec<usize> {
            bench.faults.set(rule);
            let codes = bench.codes(12);
            bench.faults.clear();
            codes.iter().enumerate().filter(|(_, code)| code.is_some()).map(|(index, _)| index + 1).collect()
        };
        assert_eq!(fails("C_Sign fail=CKR_DEVICE_ERROR at=3"), [3]);
        assert_eq!(fails("C_Sign fail=0x30 every=5"), [5, 10]);
        assert_eq!(fails("C_Sign fail=48 from=10"), [10, 11, 12]);
        assert_eq!(fails("C_Sign fail=CKR_CANCEL from=4 times=2 # twice"), [4, 5]);
        assert_eq!(fails("C_Sign fail=CKR_CANCEL at=2\nC_SignInit fail=CKR_CANCEL at=7"), [2, 7]);
        assert_eq!(fails("C_Sign:length fail=CKR_CANCEL at=1"), [1]);
        assert!((1..12).contains(&fails("C_Sign fail=CKR_CANCEL chance=0.5").len()));
    });
}

#[test]
fn a_call_fails_without_effect_or_with_it() {
    alone("a_call_fails_without_effect_or_with_it", |bench| {
        let generate = || {
            let public = [Attribute::EcParams(P256.to_vec()), Attribute::Token(true)];
            bench.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &[Attribute::Token(true)])
        };
        let before = bench.private_keys();
        bench.faults.set("C_GenerateKeyPair fail=CKR_DEVICE_ERROR");
        assert!(generate().is_err());
        assert_eq!(bench.private_keys(), before);
        bench.faults.set("C_GenerateKeyPair fail-after=CKR_DEVICE_ERROR");
        assert!(generate().is_err());
        assert_eq!(bench.private_keys(), before + 1);
    });
}

#[test]
fn calls_are_counted_and_length_queries_apart() {
    alone("calls_are_counted_and_length_queries_apart", |bench| {
        let before = (bench.faults.calls("C_Sign"), bench.faults.calls("C_SignInit"), bench.faults.calls("C_Login"));
        assert_eq!(before, (0, 0, 1));
        bench.codes(5);
        let after = (bench.faults.calls("C_Sign"), bench.faults.calls("C_SignInit"), bench.faults.calls("C_Login"));
        assert_eq!(after, (5, 5, 1));
        assert_eq!(bench.faults.calls("C_Sign:length"), 5);
    });
}

#[test]
fn calls_are_slow_and_wait_for_each_other() {
    alone("calls_are_slow_and_wait_for_each_other", |bench| {
        let four_at_once = |rule: &str| {
            bench.faults.set(rule);
            let begin = Barrier::new(5);
            thread::scope(|scope| {
                for _ in 0..4 {
                    let session = bench.module.open_rw_session(bench.slot).unwrap();
                    let (begin, key) = (&begin, bench.key);
                    scope.spawn(move || {
                        begin.wait();
                        sign(&session, key).unwrap();
                    });
                }
                begin.wait();
                Instant::now()
            })
            .elapsed()
        };
        let one = Duration::from_millis(100);
        assert!(four_at_once("C_Sign delay=100ms") < one * 3);
        assert!(four_at_once("C_Sign delay=100ms at-once=2") >= one * 2);
        assert!(four_at_once("C_Sign delay=100ms at-once=1") >= one * 4);
        // In all, whatever else takes its time.
        assert!(four_at_once("C_Sign delay=90ms takes=100ms at-once=1") >= one * 4);
        assert!(four_at_once("C_Sign delay=90ms takes=100ms") < one * 2);
    });
}

#[test]
fn sessions_run_out_and_come_back() {
    alone("sessions_run_out_and_come_back", |bench| {
        bench.faults.set("C_OpenSession sessions=3");
        let second = bench.module.open_rw_session(bench.slot).unwrap();
        let _third = bench.module.open_rw_session(bench.slot).unwrap();
        let refused = bench.module.open_rw_session(bench.slot).unwrap_err();
        assert!(matches!(refused, Error::Pkcs11(RvError::SessionCount, _)), "{refused}");
        second.close().unwrap();
        bench.module.open_rw_session(bench.slot).unwrap();
    });
}

#[test]
fn a_call_hangs_until_it_is_released() {
    alone("a_call_hangs_until_it_is_released", |bench| {
        bench.faults.set("C_Sign hang times=1");
        let session = bench.module.open_rw_session(bench.slot).unwrap();
        thread::scope(|scope| {
            let key = bench.key;
            let hung = scope.spawn(move || sign(&session, key).unwrap());
            eventually("the call is made", || (bench.faults.calls("C_Sign") == 1).then_some(()));
            bench.codes(3);
            assert!(!hung.is_finished());
            bench.faults.clear();
            hung.join().unwrap();
        });
    });
}

#[test]
fn sessions_are_closed_under_their_owner() {
    alone("sessions_are_closed_under_their_owner", |bench| {
        bench.faults.set("C_SignInit close-sessions times=1");
        let failed = sign(&bench.session, bench.key).unwrap_err();
        assert!(matches!(failed, Error::Pkcs11(RvError::SessionHandleInvalid, _)), "{failed}");
    });
}

#[test]
fn one_bit_of_a_signature_is_wrong() {
    alone("one_bit_of_a_signature_is_wrong", |bench| {
        let verifies = || {
            let signature = sign(&bench.session, bench.key).unwrap();
            let public = bench.session.find_objects(&[Attribute::Class(ObjectClass::PUBLIC_KEY)]).unwrap()[0];
            bench.session.verify(&Mechanism::Ecdsa, public, &[7; 32], &signature).is_ok()
        };
        assert!(verifies());
        bench.faults.set("C_Sign flip");
        assert!(!verifies());
    });
}

#[test]
fn a_crash_ends_the_process_and_so_does_a_rule_that_cannot_be_read() {
    for (rule, says) in [("C_GetInfo crash", ""), ("C_Sing hang", "no rule: C_Sing hang"), ("C_Sign hnag", "no rule")] {
        let token = SoftHsm::new();
        let output = Command::new("pkcs11-tool")
            .args(["--module", Faults::module().to_str().unwrap(), "--show-info"])
            .env("SOFTHSM2_CONF", token.conf())
            .env("FAULT_RULES", rule)
            .output()
            .unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        assert!(signal == Some(6) && tool::text(&output.stderr).contains(says), "{rule}: {output:?}");
    }
}

#[test]
fn an_appliance_signs_through_it_and_what_goes_wrong_changes_while_it_runs() {
    let (site, faults) = Site::with_key().faulty();
    let appliance = site.serve().unwrap();
    appliance.attest();
    assert_eq!(faults.calls("C_Login"), 1);
    faults.set("C_Sign fail=CKR_FUNCTION_REJECTED");
    assert_eq!(appliance.try_attest().status, 503);
    faults.clear();
    appliance.attest();
    assert_eq!(faults.calls("C_Login"), 1);
}
