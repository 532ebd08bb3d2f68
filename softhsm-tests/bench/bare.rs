//! The token without the appliance, in a process of its own, so that its CPU can be told apart: what all else is
//! compared with.

use std::{
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::Mechanism,
    object::{Attribute, KeyType, ObjectClass},
    session::{Session, UserType},
    slot::Slot,
};
use der::Encode;

use crate::support::{
    load::{Figures, cpu_of, exactly_on_time, times},
    softhsm::{MODULE, PIN, SoftHsm},
};

const JOB: &str = "BENCH_BARE";
const TOKEN: &str = "BENCH_TOKEN";

/// Does what the process was started for; false when it was started for something else.
pub fn was_asked() -> bool {
    let Ok(job) = std::env::var(JOB) else { return false };
    let words: Vec<&str> = job.split(' ').collect();
    let number = |at: usize| words[at].parse::<f64>().unwrap();
    match words[0] {
        "sign" => tell(&sign(Duration::from_secs_f64(number(1)))),
        "paced" => tell(&paced(number(1), Duration::from_secs_f64(number(2)))),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of keys")]
        "generate" => generate(number(1) as usize),
        "find" => find(),
        other => panic!("{other}"),
    }
    true
}

fn ask(token: &SoftHsm, job: &str) -> Vec<f64> {
    let output = Command::new(std::env::current_exe().unwrap())
        .env(JOB, job)
        .env(TOKEN, &token.label)
        .envs(token.environment())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// `C_Sign` in a loop, by one thread.
pub fn signing(token: &SoftHsm, time: Duration) -> Figures {
    told(&ask(token, &format!("sign {}", time.as_secs_f64())))
}

/// `C_Sign` at times that are fixed before, by two threads.
pub fn signing_at_times(token: &SoftHsm, rate: f64, time: Duration) -> Figures {
    told(&ask(token, &format!("paced {rate} {}", time.as_secs_f64())))
}

/// Makes so many more P-256 keys on the token, that belong to nobody.
pub fn generate_keys(token: &SoftHsm, count: usize) {
    ask(token, &format!("generate {count}"));
}

/// How long the token takes for what no start can do without: `C_Initialize`, the login, one search for private
/// keys and one for data objects. The second says how many of both were found.
pub fn start(token: &SoftHsm) -> (Duration, usize) {
    let told = ask(token, "find");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of objects")]
    (Duration::from_secs_f64(told[0]), told[1] as usize)
}

fn tell(figures: &Figures) {
    println!("{} {}", figures.elapsed.as_secs_f64(), figures.cpu.as_secs_f64());
    figures.latencies.iter().for_each(|latency| println!("{}", latency.as_secs_f64()));
}

fn told(numbers: &[f64]) -> Figures {
    let mut numbers = numbers.iter().copied().map(Duration::from_secs_f64);
    let (elapsed, cpu) = (numbers.next().unwrap(), numbers.next().unwrap());
    Figures::of(numbers.collect(), elapsed, cpu)
}

fn open() -> (Pkcs11, Slot, Session) {
    let label = std::env::var(TOKEN).unwrap();
    let context = Pkcs11::new(MODULE).unwrap();
    context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let named = |slot: &_| context.get_token_info(*slot).is_ok_and(|info| info.label().trim_end() == label);
    let slot = context.get_slots_with_token().unwrap().into_iter().find(named).unwrap();
    let session = context.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&PIN.to_owned().into())).unwrap();
    (context, slot, session)
}

fn sign(time: Duration) -> Figures {
    let (_context, _, session) = open();
    let key = signing_key(&session);
    let (begun, before, mut latencies) = (Instant::now(), cpu_of(std::process::id()), Vec::new());
    while begun.elapsed() < time {
        let call = Instant::now();
        session.sign(&Mechanism::Ecdsa, key, &[7; 32]).unwrap();
        latencies.push(call.elapsed());
    }
    Figures::of(latencies, begun.elapsed(), cpu_of(std::process::id()).saturating_sub(before))
}

fn paced(rate: f64, time: Duration) -> Figures {
    let (context, slot, _login) = open();
    let (times, next, before) = (times(rate, time), AtomicUsize::new(0), cpu_of(std::process::id()));
    let sessions = [(); 2].map(|()| context.open_rw_session(slot).unwrap());
    let begun = Instant::now() + Duration::from_millis(20);
    let latencies = thread::scope(|scope| {
        let signers = sessions.map(|session| {
            let (times, next) = (&times, &next);
            scope.spawn(move || {
                exactly_on_time();
                let (key, mut latencies) = (signing_key(&session), Vec::new());
                while let Some(time) = times.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let due = begun + *time;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    session.sign(&Mechanism::Ecdsa, key, &[7; 32]).unwrap();
                    latencies.push(due.elapsed());
                }
                latencies
            })
        });
        signers.into_iter().flat_map(|signer| signer.join().unwrap()).collect()
    });
    Figures::of(latencies, begun.elapsed(), cpu_of(std::process::id()).saturating_sub(before))
}

/// Not the audit key, which is Ed25519.
fn signing_key(session: &Session) -> cryptoki::object::ObjectHandle {
    let wanted = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::EC)];
    session.find_objects(&wanted).unwrap()[0]
}

fn generate(count: usize) {
    let (_context, _, session) = open();
    for number in 0..count {
        let id = Attribute::Id(format!("another's {number}").into_bytes());
        let label = Attribute::Label(format!("another's {number}").into_bytes());
        let curve = Attribute::EcParams(const_oid::db::rfc5912::SECP_256_R_1.to_der().unwrap());
        let public = [Attribute::Token(true), Attribute::Verify(true), id.clone(), label.clone(), curve];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            id,
            label,
        ];
        session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
    }
}

fn find() {
    let begun = Instant::now();
    let (_context, _, session) = open();
    let found: usize = [ObjectClass::PRIVATE_KEY, ObjectClass::DATA]
        .map(|class| session.find_objects(&[Attribute::Class(class)]).unwrap().len())
        .iter()
        .sum();
    println!("{} {found}", begun.elapsed().as_secs_f64());
}
