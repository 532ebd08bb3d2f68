//! Blocks of the customer's runbook, run as an operator would paste them.

use super::{appliance::Appliance, tool};

/// The commands of a block: comment and command, parted by empty lines.
pub fn commands<const COUNT: usize>(block: &str) -> [&str; COUNT] {
    block.split("\n\n").collect::<Vec<_>>().try_into().unwrap()
}

/// Runs one command with bash; what it prints. Names of machines, and ids in braces, are replaced.
pub fn run(appliance: &Appliance, command: &str, names: &[(&str, &str)]) -> String {
    let here = [("http://signer:8080", appliance.api.as_str()), ("http://signer:9090", appliance.metrics.as_str())];
    let command = here.iter().chain(names).fold(command.to_owned(), |text, (name, real)| text.replace(name, real));
    assert!(!["{key_id}", "{rotation_id}", "-h redis"].iter().any(|name| command.contains(name)), "{command}");
    tool::run("bash", &["-o", "pipefail", "-c", &command], &[])
}
