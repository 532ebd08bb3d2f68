//! `doctor`: one line for each thing that the appliance stands on, with a plain remedy for what is
//! wrong. It also runs beside a running appliance: it takes no lock that it keeps, writes nothing, and
//! logs in only where nobody is logged in already and no wrong PIN was tried before.
//!
//! It ends with 0 when no line says `fail`, and with 78 when one does.

mod finding;
mod host;
mod redis;
mod settings;
mod standby;
mod storage;
mod token;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use finding::{Finding, Verdict};

use super::{block_on, refused};
use crate::{config::Config, exit_code::ExitCode, token::explain};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The configuration file.
    #[arg(long, value_name = "FILE", required_unless_present = "token")]
    config: Option<PathBuf>,
    /// Explain a code of PKCS#11 instead: CKR_PIN_LOCKED, 0xa4 or 164.
    #[arg(long, value_name = "CKR", conflicts_with = "config")]
    token: Option<String>,
    /// Only the token of this standby: asked by the doctor itself, in the environment that its module wants.
    #[arg(long, hide = true, value_name = "NUMBER", conflicts_with = "token")]
    standby: Option<usize>,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> Result<ExitCode, ExitCode> {
    match (&options.token, &options.config) {
        (Some(code), _) => explain_code(code, options.json),
        (None, Some(path)) => Ok(report(&findings(path, options.standby), options.json)),
        (None, None) => Err(ExitCode::Usage),
    }
}

fn explain_code(code: &str, json: bool) -> Result<ExitCode, ExitCode> {
    let Some(found) = explain::explain(code) else {
        return Err(refused(
            &format!("{code:?} is no error code of PKCS#11: try CKR_PIN_LOCKED, or 0xa4"),
            ExitCode::Usage,
        ));
    };
    let explain::Explanation { name, value, cause, handled, remedy } = found;
    if json {
        let value = format!("{value:#x}");
        println!(
            "{}",
            serde_json::json!({ "name": name, "value": value, "cause": cause, "handled": handled, "remedy": remedy })
        );
    } else {
        println!("{name} ({value:#x})\ncause    {cause}\nhandled  {handled}\nremedy   {remedy}");
    }
    Ok(ExitCode::Success)
}

/// Everything there is to look at. A file that cannot be read ends it at once.
fn findings(path: &Path, standby: Option<usize>) -> Vec<Finding> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            let remedy = "correct the place that is named; hsm-config/softhsm2.toml explains every key";
            return vec![Finding::fail("configuration", error.to_string(), remedy)];
        }
    };
    if let Some(number) = standby {
        return standby::look_here(&config, number);
    }
    standby::in_environment_of(&config.token);
    let mut findings = vec![Finding::ok("configuration", path.display().to_string())];
    findings.extend(settings::look(&config));
    let (state, runs) = storage::state(&config);
    findings.extend(state);
    findings.extend(storage::audit(&config));
    findings.extend(host::look(&config));
    findings.extend(settings::certificates(&config));
    findings.extend(block_on(redis::look(&config)));
    findings.extend(token::look(&config, runs, None));
    findings.extend(standby::look(&config, path));
    findings
}

fn report(findings: &[Finding], json: bool) -> ExitCode {
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
    let text = if json {
        serde_json::json!({ "healthy": !failed, "findings": findings }).to_string()
    } else {
        findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    // Whoever reads no further (head, grep -q) has what they want.
    let _ = writeln!(std::io::stdout(), "{text}");
    if failed { ExitCode::Config } else { ExitCode::Success }
}
