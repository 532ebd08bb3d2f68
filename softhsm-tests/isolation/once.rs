//! The process that holds the module ends before a call that changes something has reached the token, or
//! right after the token has made the change and before anybody has heard of it. It is made once, or not at
//! all, whoever asks again.

use std::{collections::BTreeMap, fs, thread};

use serde_json::{Value, json};

use crate::support::{
    appliance::{Answer, Appliance},
    client::Client,
    eventually,
    faults::Faults,
    own_token::process_of,
    pkcs11_tool::field,
    signer::{key, rotation_request},
    site::Site,
    softhsm::SIGNER,
    tool,
};

/// When the process ends.
const ENDS: [&str; 2] = ["crash", "crash-after"];

/// How often each object is on the token: its kind, its label and its id.
fn objects(site: &Site) -> BTreeMap<String, usize> {
    let tool = site.pkcs11_tool();
    let mut found = BTreeMap::new();
    for object in tool.objects().into_iter().chain(tool.audit_key()) {
        let kind = object.split_whitespace().next().unwrap();
        let id = if object.contains("\n  ID:") { field(&object, "ID") } else { "" };
        *found.entry(format!("{kind} {} {id}", field(&object, "label"))).or_default() += 1;
    }
    found
}

fn no_object_is_there_twice(site: &Site, what: &str) -> BTreeMap<String, usize> {
    let objects = objects(site);
    assert!(objects.values().all(|count| *count == 1), "{what}: {objects:#?}");
    objects
}

fn with_label(objects: &BTreeMap<String, usize>, part: &str) -> usize {
    objects.keys().filter(|name| name.contains(part)).count()
}

fn serve() -> (Site, Faults, Appliance) {
    let (site, faults) = Site::with_key().faulty();
    site.edit_config("[http]", "[fleet]\nsingle = true\n[http]");
    let appliance = site.serve().unwrap();
    (site, faults, appliance)
}

/// Has the process end so in this call, once, while the request is made.
fn cut_short(appliance: &Appliance, faults: &Faults, fault: &str, path: &str, body: &Value) -> Answer {
    let (old, client) = (appliance.token_process(), Client::new(&appliance.api));
    faults.set(fault);
    let (path, body) = (path.to_owned(), body.clone());
    let asked = thread::spawn(move || client.post(&path, &body).unwrap());
    eventually(&format!("{fault}: the process ends"), || (process_of(appliance.pid()) != Some(old)).then_some(()));
    faults.clear();
    asked.join().unwrap()
}

/// The next change is made (after the lock of one whose outcome nobody knew), and leaves what the ledger says.
fn is_in_order(site: &Site, appliance: &Appliance, what: &str) {
    eventually(&format!("{what}: keys can be changed"), || {
        let rotation = rotation_request(&json!({ "emergency": true, "reason": "compromised" }));
        (appliance.post("/api/v1/keys/rotate", &rotation).status == 201).then_some(())
    });
    let objects = no_object_is_there_twice(site, what);
    let keys = appliance.states().len();
    for kind in ["Private", "Public"] {
        let halves = objects.keys().filter(|name| name.starts_with(kind) && !name.contains(" audit ")).count();
        assert_eq!(halves, keys, "{what}: {objects:#?}");
    }
    assert_eq!(objects.keys().filter(|name| name.starts_with("Certificate")).count(), keys, "{what}: {objects:#?}");
    assert_eq!(with_label(&objects, " intent "), 0, "{what}: {objects:#?}");
    assert_eq!(with_label(&objects, " key-generated"), keys, "{what}: {objects:#?}");
}

/// A generation makes a pair, and stores an intent, a certificate and a record, in this order.
fn a_generation_is_cut_short(call: &str, number: usize) {
    for end in ENDS {
        let (site, faults, appliance) = serve();
        let fault = format!("{call} {end} at={number}");
        let answer = cut_short(&appliance, &faults, &fault, "/api/v1/keys", &json!({ "initiated_by": "ops-team" }));
        // The record is read back: then nobody need know that there was no answer.
        let happened = fault == "C_CreateObject crash-after at=3";
        assert_eq!(answer.status, if happened { 201 } else { 503 }, "{fault}: {}", answer.text());
        no_object_is_there_twice(&site, &fault);
        assert_eq!(appliance.states().len(), 1 + usize::from(happened), "{fault}");
        is_in_order(&site, &appliance, &fault);
    }
}

#[test]
fn a_key_pair_is_generated_once() {
    a_generation_is_cut_short("C_GenerateKeyPair", 1);
}

#[test]
fn the_intent_to_generate_is_stored_once() {
    a_generation_is_cut_short("C_CreateObject", 1);
}

#[test]
fn the_certificate_of_a_new_key_is_stored_once() {
    a_generation_is_cut_short("C_CreateObject", 2);
}

#[test]
fn the_record_of_a_new_key_is_stored_once() {
    a_generation_is_cut_short("C_CreateObject", 3);
}

#[test]
fn the_record_of_a_rotation_is_stored_once() {
    for end in ENDS {
        let (site, faults, appliance) = serve();
        assert_eq!(appliance.post("/api/v1/keys", &json!({ "initiated_by": "ops-team" })).status, 201);
        let fault = format!("C_CreateObject {end} at=1");
        let rotation = rotation_request(&json!({}));
        let answer = cut_short(&appliance, &faults, &fault, "/api/v1/keys/rotate", &rotation);
        let happened = end == "crash-after";
        assert_eq!(answer.status, if happened { 201 } else { 503 }, "{fault}: {}", answer.text());
        let states = if happened { ["rotating", "active"] } else { ["active", "pending"] };
        assert_eq!(appliance.states(), states, "{fault}");
        let activated = with_label(&no_object_is_there_twice(&site, &fault), " key-activated");
        assert_eq!(activated, 1 + usize::from(happened), "{fault}: of the first key, and of this one");
        if happened {
            let again = appliance.post("/api/v1/keys/rotate", &rotation);
            assert_eq!((again.status, again.problem()), (409, "rotation-in-progress".to_owned()), "{fault}");
        }
        is_in_order(&site, &appliance, &fault);
    }
}

/// A revocation waits for nobody and takes no lock: who asks again at once must not add another.
#[test]
fn a_revocation_is_stored_once() {
    for end in ENDS {
        let (site, faults, appliance) = serve();
        let fault = format!("C_CreateObject {end} at=1");
        let (path, body) =
            (format!("/api/v1/keys/{}/revoke", key(1)), json!({ "reason": "compromised", "initiated_by": "test" }));
        let answer = cut_short(&appliance, &faults, &fault, &path, &body);
        let happened = end == "crash-after";
        assert_eq!(answer.status, if happened { 200 } else { 503 }, "{fault}: {}", answer.text());
        let again = appliance.post(&path, &body).ok();
        assert_eq!(again["newly_revoked"], !happened, "{fault}");
        assert_eq!(appliance.states(), ["revoked"], "{fault}");
        let objects = no_object_is_there_twice(&site, &fault);
        assert_eq!(with_label(&objects, "revo"), 1, "{fault}: {objects:#?}");
        is_in_order(&site, &appliance, &fault);
    }
}

/// A certificate of the key, and of whoever issued it.
fn chain(site: &Site, appliance: &Appliance) -> Vec<u8> {
    let at = |name: &str| site.path(name).to_str().unwrap().to_owned();
    let openssl = |line: &str| tool::run("openssl", &line.split(' ').collect::<Vec<_>>(), &[]);
    let (ca, ca_key, request, leaf) = (at("ca.pem"), at("ca.key"), at("csr.pem"), at("leaf.pem"));
    openssl(&format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=CA -keyout {ca_key} -out {ca}"
    ));
    fs::write(&request, appliance.get(&format!("/api/v1/keys/{}/csr.pem", key(1))).body).unwrap();
    openssl(&format!("x509 -req -in {request} -CA {ca} -CAkey {ca_key} -days 30 -out {leaf}"));
    [fs::read(leaf).unwrap(), fs::read(ca).unwrap()].concat()
}

#[test]
fn a_chain_of_certificates_is_stored_once() {
    for (end, number) in ENDS.into_iter().flat_map(|end| [(end, 1), (end, 2)]) {
        let (site, faults, appliance) = serve();
        let (chain, path) = (chain(&site, &appliance), format!("/api/v1/keys/{}/certificate.pem", key(1)));
        let put = || appliance.put_bytes(&path, "application/pem-certificate-chain", &chain);
        let fault = format!("C_CreateObject {end} at={number}");
        let old = appliance.token_process();
        faults.set(&fault);
        thread::scope(|scope| {
            let asked = scope.spawn(put);
            eventually(&fault, || (process_of(appliance.pid()) != Some(old)).then_some(()));
            faults.clear();
            assert_eq!(asked.join().unwrap().status, 503, "{fault}");
        });
        no_object_is_there_twice(&site, &fault);
        eventually(&format!("{fault}: it is stored"), || (put().status == 200).then_some(()));
        assert_eq!(appliance.get(&path).body, chain, "{fault}");
        let objects = no_object_is_there_twice(&site, &fault);
        let certificates = objects.keys().filter(|name| name.starts_with("Certificate")).count();
        assert_eq!(certificates, 3, "{fault}: its own, and the chain: {objects:#?}");
    }
}

/// What the first start makes: an audit key and a key. The algorithms were tried out with three pairs before.
#[test]
fn the_first_keys_are_made_once() {
    for (end, number) in ENDS.into_iter().flat_map(|end| [(end, 4), (end, 5)]) {
        let (site, faults) = Site::new().faulty();
        let fault = format!("C_GenerateKeyPair {end} at={number}");
        faults.set(&fault);
        drop(site.serve());
        assert!(faults.calls("C_GenerateKeyPair") >= number, "{fault}");
        faults.clear();
        let appliance = site.serve().unwrap_or_else(|ended| panic!("{fault}: {ended:#?}"));
        let objects = no_object_is_there_twice(&site, &fault);
        assert_eq!(with_label(&objects, " audit "), 2, "{fault}: {objects:#?}");
        assert_eq!((appliance.states(), site.pkcs11_tool().key_objects()), (vec!["active".to_owned()], (1, 1)));
        assert_eq!(with_label(&objects, &format!("{SIGNER} ledger")), 2, "{fault}: {objects:#?}");
    }
}
