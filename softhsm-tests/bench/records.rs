//! A long audit trail, written by the product's own writer behind an appliance's first records.

#[path = "trail_writer.rs"]
mod trail_writer;

use std::path::Path;

use verification_signer::key::PublicKey;

use crate::{
    Place, number,
    support::appliance::Appliance,
    turns::{Load, Turns},
};

/// Written at a time, between two of the appliance's checkpoints: a start reads what follows the last one.
const CHUNK: u64 = 2_000_000;

pub fn measure() {
    let records = number("BENCH_RECORDS", 1_000_000);
    let places = [Place::new(""), Place::new("")];
    let [few, many] = &places;
    let mut written = 0;
    while written < records {
        let key = audit_key(many.serve());
        let chunk = CHUNK.min(records - written);
        write(&many.home().join("audit"), &key, written, chunk);
        written += chunk;
    }
    let appliances = [few.serve(), many.serve()];
    Turns::of(["0".into(), records.to_string()].map(|records| format!("{records} records in the audit trail")))
        .run_on(&appliances, [Load::usual(); 2]);
    for appliance in appliances {
        appliance.stop();
    }
}

/// With which it signs its trail.
fn audit_key(appliance: Appliance) -> PublicKey {
    let signer = appliance.get("/api/v1/signer").ok();
    appliance.stop();
    PublicKey::all_from_pem(signer["audit"]["public_key"].as_str().unwrap()).unwrap().remove(0)
}

fn write(directory: &Path, key: &PublicKey, from: u64, count: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (opened, _) = trail_writer::open(directory, key);
        let size = opened.audit.size();
        trail_writer::write(&opened.audit, from, count, 512, false).await;
        trail_writer::until_indexed(&opened.index, size + count).await;
    });
}
