//! Writes the manual pages and the shell completions into a directory: `cargo run --example documents -- DIR`.

use std::{fs, path::Path};

use clap::CommandFactory;
use clap_complete::Shell;
use verification_signer::cli::Cli;

const NAME: &str = "verification-signer";

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).unwrap_or_else(|| "target/documents".into());
    let (pages, completions) = (Path::new(&directory).join("man"), Path::new(&directory).join("completions"));
    fs::create_dir_all(&pages)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(Cli::command(), &pages)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), NAME, &completions)?;
    }
    Ok(())
}
