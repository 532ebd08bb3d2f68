//! What a module is excused from, and why. The table in hsm-config/README.md gives the same reasons.

use crate::support::modules::Module;

/// Tests that share a reason.
pub struct Excuse {
    pub reason: &'static str,
    pub tests: &'static [&'static str],
}

const NO_ED25519: &[&str] = &[
    "main_job::ed25519_attestations_verify_with_openssl",
    "lifecycle::evidence::openssl_accepts_the_certificate_request_of_an_ed25519_key",
    "lifecycle::evidence::openssl_accepts_the_proof_of_an_ed25519_key",
    "lifecycle::pending::a_rotation_to_another_algorithm_leaves_the_pending_key_alone",
    "lifecycle::rotation::a_rotation_can_change_the_algorithm",
];

const NO_SECP256K1: &[&str] = &["main_job::secp256k1_attestations_verify_with_openssl"];

/// Two appliances on one token.
const SEES_NO_OTHERS: &[&str] = &[
    "lifecycle::following::a_cancelled_rotation",
    "lifecycle::following::a_completed_rotation",
    "lifecycle::following::a_destroyed_key",
    "lifecycle::following::a_pending_key",
    "lifecycle::following::a_revocation",
    "lifecycle::following::a_rotation",
    "lifecycle::following::an_emergency",
];

/// What does not apply on a module.
pub fn on(module: Module) -> &'static [Excuse] {
    match module {
        Module::SoftHsm2 => &[],
        Module::P11KitRemote => &[Excuse { reason: "p11-kit 0.24 does not pass Ed25519 on", tests: NO_ED25519 }],
        Module::Tpm2 => &[
            Excuse { reason: "TPMs have no Ed25519", tests: NO_ED25519 },
            Excuse { reason: "TPMs have no secp256k1", tests: NO_SECP256K1 },
            Excuse { reason: "one process does not see what another changes", tests: SEES_NO_OTHERS },
        ],
        Module::Kryoptic => &[
            Excuse { reason: "no Ed25519 with OpenSSL before 3.2", tests: NO_ED25519 },
            Excuse { reason: "Kryoptic has no secp256k1", tests: NO_SECP256K1 },
        ],
    }
}
