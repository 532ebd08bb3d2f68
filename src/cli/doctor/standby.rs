//! Standbys. A module finds its token through the environment, and each has its own: so the doctor starts itself
//! once more for each of them.

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use super::{finding::Finding, storage, token};
use crate::{
    clock::Clock,
    config::{Config, LedgerConfig},
    key::{Line, Standing},
    ledger_file,
    service::opaque::OpaqueOrder,
    token::{Config as TokenConfig, Keys, Token, standby},
};

/// Values that a configuration gives to its module's environment.
fn values(config: &TokenConfig) -> Vec<(&str, &str)> {
    config.environment.iter().filter_map(|entry| entry.split_once('=')).collect()
}

/// Becomes the same program in the environment that this module wants, unless it is that already.
pub(super) fn in_environment_of(config: &TokenConfig) {
    let values = values(config);
    if values.iter().any(|(name, value)| std::env::var_os(name).is_none_or(|now| now != *value)) {
        let error = Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).envs(values).exec();
        eprintln!("verification-signer: the doctor could not be started in the environment of the token: {error}");
    }
}

/// What the doctor finds at each standby.
pub(super) fn look(config: &Config, path: &Path) -> Vec<Finding> {
    let each = config.standby.iter().zip(1..);
    each.flat_map(|(standby, number)| {
        ask(path, number, standby).unwrap_or_else(|error| {
            let remedy = "run this as the service's user";
            vec![Finding::fail("standby", format!("standby-{number} could not be looked at: {error}"), remedy)]
        })
    })
    .collect()
}

#[derive(serde::Deserialize)]
struct Report {
    findings: Vec<Finding>,
}

fn ask(path: &Path, number: usize, standby: &TokenConfig) -> Result<Vec<Finding>, String> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["doctor", "--json", "--standby", &number.to_string(), "--config"]).arg(path).envs(values(standby));
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| error.to_string())?;
    let Report { mut findings } = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    for finding in &mut findings {
        finding.found = format!("standby-{number}: {}", finding.found);
    }
    Ok(findings)
}

/// The same, in the environment of that standby's module.
pub(super) fn look_here(config: &Config, number: usize) -> Vec<Finding> {
    let mut here = config.clone();
    let Some(standby) = number.checked_sub(1).and_then(|at| config.standby.get(at)) else {
        return vec![Finding::fail("standby", "there is no such standby", "count [[standby]] in the configuration")];
    };
    here.token = standby.clone();
    let (_, runs) = storage::state(config);
    match standing(config) {
        Ok(standing) => {
            let line = line(config, standby, &standing);
            token::look(&here, runs, Some(&Wanted { standing, line }))
        }
        Err(error) => vec![Finding::fail("standby-keys", error, "see that the ledger's file is there and whole")],
    }
}

/// The keys that a standby is to have.
pub(super) struct Wanted {
    standing: Standing,
    line: Line,
}

fn line(config: &Config, standby: &TokenConfig, standing: &Standing) -> Line {
    match (standby.keys, &standby.uri.serial, &config.token.uri.serial) {
        (Keys::Own, Some(serial), _) => Line::Token(serial.clone()),
        (Keys::Cloned, _, Some(primary)) => standing.line_of(primary),
        (Keys::Own | Keys::Cloned, _, _) => Line::Signer,
    }
}

fn standing(config: &Config) -> Result<Standing, String> {
    let LedgerConfig::File { path } = &config.ledger else { return Err("the ledger is not in a file".into()) };
    let records = ledger_file::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Standing::fold(&config.signer.id, records).map_err(|error| error.to_string())
}

/// Whether it has the keys that sign and will.
pub(super) async fn keys(token: &Token, wanted: &Wanted) -> Finding {
    let Wanted { standing, line } = wanted;
    if line.serial().is_some() && !standing.was_active(line) {
        return Finding::warn(
            "standby-keys",
            "has no key of its own yet: it cannot take over",
            "run `verification-signer init`, or set first_key_on_token_serial in its table and start the service again",
        );
    }
    let mut lacks = Vec::new();
    for key in standing.needed(line, Clock::system().now()) {
        if let Err(error) = standby::prove(token, key, &OpaqueOrder::canary("doctor")).await {
            lacks.push(format!("{} ({error})", key.id));
        }
    }
    if lacks.is_empty() {
        return Finding::ok("standby-keys", "has the keys that sign and will");
    }
    Finding::warn(
        "standby-keys",
        format!("lacks {}: it cannot take over", lacks.join(", ")),
        match line.serial() {
            None => "clone them from the primary with the vendor's tools, under the same CKA_ID and label, both halves",
            Some(_) => "find the token that has them; where they are lost, revoke them and rotate on this token",
        },
    )
}
