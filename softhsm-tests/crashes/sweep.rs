//! One operation, killed again and again.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    moment::{Moment, THREADS, kill_at_call, killed_at_call, random, random_part, record_calls},
    operation::Operation,
};
use crate::support::{
    appliance::{Appliance, BINARY},
    client::Client,
    own_token::process_of,
    signer::{first_key_here, key},
    softhsm::SoftHsm,
    tool,
};

/// Where the module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    Here,
    InAProcessOfItsOwn,
}

/// A token, and the home of the appliance on it.
struct Place {
    token: SoftHsm,
    home: TempDir,
    module: Module,
}

impl Place {
    /// Where the operation begins.
    fn before(operation: Operation, module: Module) -> Self {
        let place = Self { token: SoftHsm::new(), home: tempfile::tempdir().unwrap(), module };
        if !operation.is_start() {
            let appliance = place.serve();
            for (path, body) in operation.preparation() {
                let answer = appliance.post(&path, &body);
                assert!(answer.status < 300, "{path}: {}", answer.text());
            }
            appliance.stop();
        }
        place
    }

    fn copy(&self) -> Self {
        let copy = Self { token: self.token.copy(), home: tempfile::tempdir().unwrap(), module: self.module };
        let from = format!("{}/.", self.home.path().display());
        tool::run("cp", &["-a", &from, copy.home.path().to_str().unwrap()], &[]);
        copy
    }

    fn config(&self) -> PathBuf {
        let config = self.token.config(self.home.path(), &first_key_here(&self.token, "", "[fleet]\nsingle = true"));
        let isolation = self.module == Module::InAProcessOfItsOwn;
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("[token]", &format!("[token]\nisolation = {isolation}"))).unwrap();
        config
    }

    fn serve(&self) -> Appliance {
        Appliance::serve(&self.token, &self.config())
            .unwrap_or_else(|(status, log)| panic!("serve ended with {status}: {log}"))
    }

    /// CKA_IDs of all private keys on the token. Nobody may be using it.
    fn private_keys(&self) -> BTreeSet<String> {
        self.token.pkcs11_tool().private_keys().into_iter().collect()
    }

    /// CKA_IDs that an intent on the token names.
    fn intents(&self) -> BTreeSet<String> {
        let listed = self.token.pkcs11_tool().logged_in(&["--list-objects", "--type", "data"]);
        let after = |line: &str| line.split_once(" intent ").map(|(_, id)| id.trim_matches(['\'', ' ']).to_owned());
        listed.lines().filter_map(after).collect()
    }
}

/// How long the operation takes undisturbed, and how many calls each thread makes in it.
struct Measured {
    duration: Duration,
    calls: [usize; THREADS.len()],
}

/// What a sweep met.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    /// Operations that had answered before the kill came.
    answered: usize,
    /// Of the kills, those that only the module's process died of.
    outlived: usize,
    /// SoftHSM2's own losses: killed between truncating and rewriting its token file.
    token_lost: usize,
    unchanged: usize,
    changed: usize,
    with_leftovers: usize,
}

/// Kills the operation this many times.
pub fn sweep(operation: Operation, module: Module, kills: usize) {
    let before = Place::before(operation, module);
    let measured = measure(operation, &before);
    let mut tally = Tally::default();
    while tally.kills < kills {
        assert!(tally.answered < 10 * (kills + 5), "the kills come too late: {tally:?}");
        let moment = moment(&measured, tally.kills + tally.answered);
        println!("{operation:?}, module {module:?}: killed {moment:?}");
        round(operation, &before.copy(), moment, &mut tally);
    }
    println!("{operation:?}, module {module:?}, in {:?} with {:?} calls: {tally:?}", measured.duration, measured.calls);
}

fn measure(operation: Operation, before: &Place) -> Measured {
    let place = before.copy();
    let begun = Instant::now();
    if operation.is_start() {
        match operation {
            Operation::Init => assert!(init(&place).status().unwrap().success()),
            _ => drop(place.serve()),
        }
        // Its threads come and go: any call number up to what its busiest thread makes.
        return Measured { duration: begun.elapsed(), calls: [200; THREADS.len()] };
    }
    let appliance = place.serve();
    let (path, body) = operation.request();
    let begun = Instant::now();
    appliance.post(&path, &body);
    let duration = begun.elapsed();
    drop(appliance);
    let calls = THREADS.map(|thread| {
        let place = before.copy();
        let appliance = place.serve();
        let file = place.home.path().join("calls");
        let tracer = record_calls(appliance.pid(), thread, &file);
        appliance.post(&path, &body);
        drop(tracer);
        fs::read_to_string(file).unwrap().lines().count()
    });
    Measured { duration, calls }
}

/// By turns a random delay and any of the calls; every fourth call is one of the audit trail's.
fn moment(measured: &Measured, round: usize) -> Moment {
    if round.is_multiple_of(2) {
        return Moment::After(random_part(measured.duration));
    }
    let [lifecycle, ledger, audit] = measured.calls;
    let (first, calls) = if round % 8 == 7 { (2, audit) } else { (0, lifecycle + ledger) };
    let mut number = usize::try_from(random(calls as u64)).unwrap();
    let mut thread = first;
    while number >= measured.calls[thread] {
        number -= measured.calls[thread];
        thread += 1;
    }
    Moment::Call { thread: THREADS[thread], number: number + 1 }
}

fn round(operation: Operation, place: &Place, moment: Moment, tally: &mut Tally) {
    let answered = if operation.is_start() {
        kill_start(operation, place, moment)
    } else {
        kill_request(operation, place, moment, tally)
    };
    if answered {
        tally.answered += 1;
    } else {
        tally.kills += 1;
    }
    if !place.token.serials().contains(&place.token.serial) {
        tally.token_lost += 1;
        return;
    }
    let (found, intents) = (place.private_keys(), place.intents());
    if operation == Operation::Init {
        let output = init(place).output().unwrap();
        assert!(output.status.success(), "init again: {}", tool::text(&output.stderr));
    }
    let appliance = place.serve();
    let states = appliance.states();
    let expected = operation.outcomes();
    let allowed = if answered { &expected[expected.len() - 1..] } else { expected };
    assert!(allowed.iter().any(|outcome| states == *outcome), "{states:?} after an answer: {answered}");
    if states == expected[0] && !answered {
        tally.unchanged += 1;
    } else {
        tally.changed += 1;
    }

    let recorded = recorded(&appliance);
    let unexplained: Vec<_> = found.iter().filter(|id| !recorded.contains(*id) && !intents.contains(*id)).collect();
    assert!(unexplained.is_empty(), "private keys without record or intent: {unexplained:?}");
    if found.iter().any(|id| !recorded.contains(id)) {
        tally.with_leftovers += 1;
    }
    goes_on(operation, place, appliance);
}

/// CKA_IDs of all keys in the ledger.
fn recorded(appliance: &Appliance) -> BTreeSet<String> {
    let keys = appliance.get("/api/v1/keys").ok();
    keys.as_array().unwrap().iter().map(|key| key["token"]["object_id"].as_str().unwrap().to_owned()).collect()
}

/// What is there signs, the next operation works and cleans up, and every key left is on record.
fn goes_on(operation: Operation, place: &Place, appliance: Appliance) {
    let active = appliance.states().iter().any(|state| state == "active");
    assert_eq!(appliance.try_attest().status, if active { 200 } else { 503 });
    if operation == Operation::Destroy {
        let (path, body) = operation.request();
        assert!(appliance.post(&path, &body).ok()["private_key_destroyed_at"].is_string());
    }
    let rotation = json!({ "reason": "compromised", "initiated_by": "security-team", "emergency": true });
    let answer = appliance.post("/api/v1/keys/rotate", &rotation);
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(appliance.states().iter().filter(|state| *state == "active").count(), 1);
    let attestation = appliance.attest();
    assert_eq!(appliance.verdict(&attestation), "valid");
    let keys = appliance.get("/api/v1/keys").ok();
    let expected: BTreeSet<String> = keys
        .as_array()
        .unwrap()
        .iter()
        .filter(|key| key["private_key_destroyed_at"].is_null())
        .map(|key: &Value| key["token"]["object_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(operation == Operation::Destroy, appliance.key(1)["private_key_destroyed_at"].is_string(), "{}", key(1));
    appliance.stop();
    assert_eq!(place.private_keys(), expected);
    assert!(place.intents().is_empty());
}

/// Sends the request and kills the server, or the process that holds its module; true when it had answered.
fn kill_request(operation: Operation, place: &Place, moment: Moment, tally: &mut Tally) -> bool {
    let appliance = place.serve();
    let held = process_of(appliance.pid());
    let tracer = match moment {
        Moment::Call { thread, number } => Some(kill_at_call(appliance.pid(), thread, number)),
        Moment::After(_) => None,
    };
    let client = Client::new(&appliance.api);
    let (path, body) = operation.request();
    let request = thread::spawn(move || client.post(&path, &body));
    if let Moment::After(delay) = moment {
        thread::sleep(delay);
        if held.is_none() || random(2) == 0 {
            // Dropped is killed.
            drop(appliance);
            return request.join().unwrap().is_some_and(|answer| answer.status < 300);
        }
        appliance.signal_token_process("KILL");
    }
    let answer = request.join().unwrap();
    match &answer {
        None => assert_eq!(appliance.wait().signal(), Some(9), "it ended otherwise than by SIGKILL"),
        Some(answer) => {
            assert!(matches!(answer.status, 200 | 201 | 409 | 503), "{} {}", answer.status, answer.text());
            tally.outlived += usize::from(held.is_some() && process_of(appliance.pid()) != held);
            drop(tracer);
            if held.is_some() {
                // The appliance goes on, and ends when it is told to.
                appliance.stop();
            }
        }
    }
    answer.is_some_and(|answer| answer.status < 300)
}

/// Starts the process and kills it; true when it had come to its end.
fn kill_start(operation: Operation, place: &Place, moment: Moment) -> bool {
    let mut command = match moment {
        Moment::Call { number, .. } => killed_at_call(BINARY, number),
        Moment::After(_) => Command::new(BINARY),
    };
    let subcommand = if operation == Operation::Init { "init" } else { "serve" };
    command.arg(subcommand).arg("--config").arg(place.config()).envs(place.token.environment());
    if let Moment::After(delay) = moment {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(delay);
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        return ended.is_some_and(|status| status.success());
    }
    match Appliance::start(command, place.home.path()) {
        Ok(_ready) => true,
        Err((status, _)) => status.success(),
    }
}

fn init(place: &Place) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["init", "--config"]).arg(place.config()).envs(place.token.environment()).stdout(Stdio::null());
    command
}
