//! The published vectors: this program makes exactly them, and all who verify agree on each.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ed25519_dalek::Signer as _;
use serde_json::{Value, json};
use verification_signer::{
    attestation::{
        Attestation, AttestationRequest, AttestationTree, Inclusion, Issuer, Proof, ProofPurpose, Statement, Text,
        judge, request::Period,
    },
    key::{Algorithm, KeyId, PublicKey},
    merkle::leaf_hash,
    timestamp::Timestamp,
};

use super::{command_line, python, written};
use crate::support::tool;

const FILE: &str = "softhsm-tests/vectors/merkle-vectors.json";
const AT: &str = "2026-11-23T12:00:00Z";
const KEY_ID: &str = "veid-signer-vectors:1";

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A key of its own for each algorithm, from seeds that everybody knows. ECDSA is deterministic (RFC 6979).
struct Key {
    id: KeyId,
    public: PublicKey,
    sign: Sign,
}

impl Key {
    fn new(algorithm: Algorithm) -> Self {
        let seed = [7; 32];
        let (public, sign): (_, Sign) = match algorithm {
            Algorithm::P256 => {
                let key = p256::ecdsa::SigningKey::from_slice(&seed).unwrap();
                let sign = move |message: &[u8]| {
                    let signature: p256::ecdsa::Signature = p256::ecdsa::signature::Signer::sign(&key, message);
                    signature.to_bytes().to_vec()
                };
                let key = p256::ecdsa::SigningKey::from_slice(&seed).unwrap();
                (PublicKey::P256(*key.verifying_key()), Box::new(sign))
            }
            Algorithm::Secp256k1 => {
                let key = k256::ecdsa::SigningKey::from_slice(&seed).unwrap();
                let sign = move |message: &[u8]| {
                    let signature: k256::ecdsa::Signature = k256::ecdsa::signature::Signer::sign(&key, message);
                    signature.to_bytes().to_vec()
                };
                let key = k256::ecdsa::SigningKey::from_slice(&seed).unwrap();
                (PublicKey::Secp256k1(*key.verifying_key()), Box::new(sign))
            }
            Algorithm::Ed25519 => {
                let key = ed25519_dalek::SigningKey::from_bytes(&seed);
                let public = PublicKey::Ed25519(key.verifying_key());
                (public, Box::new(move |message: &[u8]| key.sign(message).to_bytes().to_vec()))
            }
        };
        let number = 1 + Algorithm::ALL.iter().position(|one| *one == algorithm).unwrap();
        Self { id: KeyId::parse(&KEY_ID.replace(":1", &format!(":{number}"))).unwrap(), public, sign }
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.public.normalize(&(self.sign)(message)).unwrap();
        signature.as_bytes().to_vec()
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.public.coordinates();
        let mut jwk = json!({
            "kty": if y.is_some() { "EC" } else { "OKP" },
            "crv": self.public.algorithm().as_str(),
            "x": URL_SAFE_NO_PAD.encode(x),
            "kid": self.id,
        });
        if let Some(y) = y {
            jwk["y"] = URL_SAFE_NO_PAD.encode(y).into();
        }
        jwk
    }

    fn statement(&self, number: u8) -> Statement {
        let request: AttestationRequest = serde_json::from_value(json!({
            "type": "email_verification",
            "subject": { "account_address": format!("virtengine1vector{number}") },
            "nonce": hex::encode([number + 1; 32]),
            "score": 90,
            "confidence": 80,
            "metadata": { "text": "a<b>&c\u{2028}é" },
        }))
        .unwrap();
        let fingerprint = self.public.fingerprint();
        let issuer = Issuer {
            id: Text::new(format!("did:virtengine:signer:{}", &fingerprint[..16])).unwrap(),
            key_fingerprint: Text::new(fingerprint).unwrap(),
            key_id: Text::new(self.id.to_string()).unwrap(),
            validator_address: Text::default(),
            service_endpoint: Text::default(),
        };
        let at = |text| Timestamp::parse(text).unwrap();
        let period = Period { issued_at: at("2026-11-23T10:00:00Z"), expires_at: at("2026-11-24T10:00:00Z") };
        request.into_statement(issuer, period)
    }

    fn attestation(&self, statement: &Statement, signature: &[u8], merkle: Option<Inclusion>) -> Value {
        let algorithm = self.public.algorithm();
        let proof = Proof {
            kind: if merkle.is_some() { algorithm.merkle_proof_type() } else { algorithm.proof_type() },
            created: Timestamp::parse("2026-11-23T10:00:01Z").unwrap(),
            verification_method: Text::new(format!("{}#{}", statement.issuer.id, self.id)).unwrap(),
            proof_purpose: ProofPurpose::AssertionMethod,
            proof_value: Text::new(STANDARD.encode(signature)).unwrap(),
            nonce: statement.nonce.clone(),
            domain: Text::default(),
            challenge: Text::default(),
            merkle,
        };
        serde_json::from_slice(&Attestation { statement: statement.clone(), proof }.to_json()).unwrap()
    }

    /// A tree of so many attestations, and everything on the way to them.
    fn tree(&self, name: &str, numbers: &[u8]) -> Value {
        let statements: Vec<_> = numbers.iter().map(|number| self.statement(*number)).collect();
        let canonical: Vec<_> = statements.iter().map(Statement::canonical_bytes).collect();
        let tree = AttestationTree::new(canonical.iter().map(Vec::as_slice)).unwrap();
        let statement = tree.root_statement();
        let signature = self.signature(&statement);
        let members: Vec<_> = std::iter::zip(&statements, &canonical)
            .zip(tree.inclusions())
            .map(|((statement, canonical), inclusion)| {
                json!({
                    "canonical": String::from_utf8(canonical.clone()).unwrap(),
                    "leaf_hash": hex::encode(leaf_hash(canonical)),
                    "attestation": self.attestation(statement, &signature, Some(inclusion)),
                })
            })
            .collect();
        json!({ "name": name, "key": self.id, "signed": String::from_utf8(statement).unwrap(), "members": members })
    }
}

fn all_keys() -> [Key; 3] {
    Algorithm::ALL.map(Key::new)
}

fn vectors() -> Value {
    let [p256, ed25519, secp256k1] = all_keys();
    let trees = json!([
        p256.tree("one leaf: its hash is the root, and its path is empty", &[0]),
        p256.tree("three leaves: the last goes up without being hashed", &[0, 1, 2]),
        p256.tree("five leaves", &[0, 1, 2, 3, 4]),
        p256.tree("the same leaf twice: nobody signs that, and both places verify", &[0, 0]),
        ed25519.tree("Ed25519", &[0, 1]),
        secp256k1.tree("secp256k1", &[0, 1, 2]),
    ]);
    json!({
        "keys": [p256.jwk(), ed25519.jwk(), secp256k1.jwk()],
        "trees": trees,
        "refused": refused(&p256, &trees),
    })
}

/// What must be refused, with the reason; `unreadable` is not even an attestation.
fn refused(key: &Key, trees: &Value) -> Vec<Value> {
    let of = |tree: usize, member: usize| trees[tree]["members"][member]["attestation"].clone();
    let (five, last, three) = (of(2, 2), of(2, 4), of(1, 0));
    let alone = key.statement(0);
    let own = key.signature(&alone.canonical_bytes());
    let first = AttestationTree::new([&alone.canonical_bytes()[..]]).unwrap().inclusions().next().unwrap();
    let high_s = {
        let raw = STANDARD.decode(five["proof"]["proof_value"].as_str().unwrap()).unwrap();
        let signature = p256::ecdsa::Signature::from_slice(&raw).unwrap();
        let s = -*signature.s();
        STANDARD
            .encode(p256::ecdsa::Signature::from_scalars(signature.r().to_bytes(), s.to_bytes()).unwrap().to_bytes())
    };
    let path = |value: &Value| value["proof"]["merkle"]["path"].clone();
    let longer = {
        let mut hashes = path(&five);
        hashes.as_array_mut().unwrap().push(STANDARD.encode([0; 32]).into());
        hashes
    };
    let swapped = json!([path(&five)[1], path(&five)[0], path(&five)[2]]);
    let place = |field: &str| format!("/proof/merkle/{field}");
    let mut cases = Vec::new();
    let mut case = |name: &str, reason: &str, of: &Value, changes: &[(&str, Value)]| {
        let mut attestation = of.clone();
        for (pointer, value) in changes {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            let parent = attestation.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            if *value == json!("(removed)") {
                parent.shift_remove(field);
            } else {
                parent.insert(field.to_owned(), value.clone());
            }
        }
        cases.push(json!({ "name": name, "reason": reason, "attestation": attestation }));
    };
    let (size, index, hashes) = (&place("tree_size")[..], &place("leaf_index")[..], &place("path")[..]);
    let kind = "/proof/type";
    case("another statement", "signature_mismatch", &five, &[("/score", json!(91))]);
    case(
        "the signature of another tree",
        "signature_mismatch",
        &five,
        &[("/proof/proof_value", of(0, 0)["proof"]["proof_value"].clone())],
    );
    case("a high S", "signature_mismatch", &five, &[("/proof/proof_value", json!(high_s))]);
    case("hashes of the path in another order", "signature_mismatch", &five, &[(hashes, swapped)]);
    case("the path of another leaf", "signature_mismatch", &five, &[(hashes, path(&of(2, 0)))]);
    case("another place", "signature_mismatch", &five, &[(index, json!(3))]);
    case("the size of another tree that the path fits", "signature_mismatch", &three, &[(size, json!(4))]);
    case("a place beyond the only one", "inclusion_malformed", &of(0, 0), &[(index, json!(1))]);
    case("a place beyond the tree", "inclusion_malformed", &five, &[(index, json!(5))]);
    case("a place whose path is shorter", "inclusion_malformed", &five, &[(index, json!(4))]);
    case("a place whose path is longer", "inclusion_malformed", &last, &[(index, json!(0))]);
    case("no path", "inclusion_malformed", &five, &[(hashes, json!([]))]);
    case("a path too long", "inclusion_malformed", &five, &[(hashes, longer)]);
    case("an empty tree", "inclusion_malformed", &of(0, 0), &[(size, json!(0))]);
    case("a tree too large", "inclusion_malformed", &five, &[(size, json!(65_537))]);
    case(
        "a root's signature as one over the attestation itself",
        "signature_mismatch",
        &of(0, 0),
        &[(kind, json!("EcdsaSecp256r1Signature2019")), ("/proof/merkle", json!("(removed)"))],
    );
    case(
        "the attestation's own signature as that of a root",
        "signature_mismatch",
        &key.attestation(&alone, &own, Some(first)),
        &[],
    );
    case(
        "the type of a signature of its own",
        "proof_type_mismatch",
        &five,
        &[(kind, json!("EcdsaSecp256r1Signature2019"))],
    );
    case("the type of another algorithm", "proof_type_mismatch", &five, &[(kind, json!("MerkleEd25519Signature2020"))]);
    case(
        "the type of a tree without a place in it",
        "proof_type_mismatch",
        &five,
        &[("/proof/merkle", json!("(removed)"))],
    );
    case("null for a place", "unreadable", &five, &[("/proof/merkle", json!(null))]);
    case("one field too many", "unreadable", &five, &[(&place("root"), json!("AA=="))]);
    case("a negative place", "unreadable", &five, &[(index, json!(-1))]);
    case("a fraction of a place", "unreadable", &five, &[(index, json!(2.0))]);
    case("a size as text", "unreadable", &five, &[(size, json!("5"))]);
    case("a hash of 31 bytes", "unreadable", &five, &[(hashes, json!([STANDARD.encode([0; 31])]))]);
    case(
        "a hash in another spelling",
        "unreadable",
        &three,
        &[(hashes, json!([path(&three)[0].as_str().unwrap().trim_end_matches('=')]))],
    );
    cases
}

fn published() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_published_vectors_are_what_this_program_makes() {
    let made = serde_json::to_string_pretty(&vectors()).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("WRITE_VECTORS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), made, "WRITE_VECTORS=1 writes them anew");
}

/// What our own verification says: `valid`, or the reason why not.
fn judged(attestation: &Value) -> String {
    let Ok(attestation) = serde_json::from_slice::<Attestation>(&serde_json::to_vec(attestation).unwrap()) else {
        return "unreadable".into();
    };
    let named = attestation.statement.issuer.key_id.as_str();
    let keys = all_keys();
    let key = keys.iter().find(|key| key.id.to_string() == named).unwrap();
    match judge(&attestation, &key.id, &key.public) {
        Ok(()) => "valid".into(),
        Err(why) => serde_json::to_value(why).unwrap().as_str().unwrap().to_owned(),
    }
}

fn members(vectors: &Value) -> Vec<Value> {
    let trees = vectors["trees"].as_array().unwrap();
    trees.iter().flat_map(|tree| tree["members"].as_array().unwrap().clone()).collect()
}

#[test]
fn our_verification_says_of_each_vector_what_is_published() {
    let vectors = published();
    for member in members(&vectors) {
        assert_eq!(judged(&member["attestation"]), "valid", "{member}");
    }
    for case in vectors["refused"].as_array().unwrap() {
        assert_eq!(judged(&case["attestation"]), case["reason"].as_str().unwrap(), "{}", case["name"]);
    }
}

#[test]
fn the_command_line_says_of_each_vector_what_is_published() {
    let (vectors, home) = (published(), tempfile::tempdir().unwrap());
    let keys = written(home.path(), "jwks.json", &json!({ "keys": vectors["keys"] }));
    let options = ["--jwks", keys.to_str().unwrap(), "--at", AT];
    // As the answer to a batch.
    let batch = written(
        home.path(),
        "batch.json",
        &json!(
            members(&vectors)
                .iter()
                .map(|one| json!({ "status": 200, "attestation": one["attestation"] }))
                .collect::<Vec<_>>()
        ),
    );
    let output = command_line(&batch, &options);
    assert_eq!(output.status.code(), Some(0), "{}", tool::text(&output.stdout));
    for case in vectors["refused"].as_array().unwrap() {
        let file = written(home.path(), "one.json", &case["attestation"]);
        let output = command_line(&file, &options);
        let said = tool::text(&output.stdout) + &tool::text(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{}: {said}", case["name"]);
        let reason = case["reason"].as_str().unwrap().replace("unreadable", "is no attestation");
        assert!(said.contains(&reason), "{}: {said}", case["name"]);
    }
    // Keys as PEM, and the time.
    let pem: String = all_keys().iter().map(|key| key.public.to_pem()).collect();
    fs::write(home.path().join("keys.pem"), pem).unwrap();
    let keys = home.path().join("keys.pem");
    let at = |time| command_line(&batch, &["--public-key", keys.to_str().unwrap(), "--at", time]);
    assert!(at(AT).status.success());
    assert!(tool::text(&at("2026-11-24T10:00:00Z").stdout).contains("expired"));
    assert!(tool::text(&at("2026-11-23T09:54:59Z").stdout).contains("not_yet_valid"));
    let others = written(home.path(), "others.json", &json!({ "keys": [] }));
    let output = command_line(&batch, &["--jwks", others.to_str().unwrap(), "--at", AT]);
    assert_eq!(output.status.code(), Some(65));
    assert!(tool::text(&output.stdout).contains("unknown_key"));
    assert_eq!(command_line(&batch, &[]).status.code(), Some(64), "no keys");
}

#[test]
fn a_program_that_knows_nothing_of_ours_says_the_same() {
    let (vectors, home) = (published(), tempfile::tempdir().unwrap());
    let keys = written(home.path(), "jwks.json", &json!({ "keys": vectors["keys"] }));
    let files = |cases: Vec<&Value>| -> Vec<_> {
        let write = |(at, case): (usize, &Value)| written(home.path(), &format!("{at}.json"), &case["attestation"]);
        cases.into_iter().enumerate().map(write).collect()
    };
    let members = members(&vectors);
    let good = files(members.iter().collect());
    let output = python(&keys, &good.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    assert!(output.status.success(), "{}{}", tool::text(&output.stdout), tool::text(&output.stderr));
    assert_eq!(tool::text(&output.stdout).matches("\nvalid ").count() + 1, members.len());
    let cases = vectors["refused"].as_array().unwrap();
    let bad = files(cases.iter().collect());
    let output = python(&keys, &bad.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    let said = tool::text(&output.stdout);
    assert_eq!(said.lines().count(), cases.len(), "{said}{}", tool::text(&output.stderr));
    for (line, case) in std::iter::zip(said.lines(), cases) {
        assert!(line.starts_with("INVALID "), "{}: {line}", case["name"]);
    }
}

#[test]
fn what_is_signed_names_what_it_is() {
    let signed = vectors()["trees"][0]["signed"].as_str().unwrap().to_owned();
    assert!(signed.starts_with("DSSEv1 43 application/vnd.virtengine.veid.merkle-root 47 1\n"), "{signed}");
    assert!(signed.ends_with("=\n"));
}
