//! The executable: loads the environment file, parses the command line, and runs a subcommand.

use std::process::ExitCode;

use clap::Parser as _;
use tributary::cli::Cli;
use tributary::config::load_env_file;
use tributary::tls;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stderr, reason = "the error of a command")]
fn main() -> ExitCode {
    tls::install_provider();
    // First, because it may set defaults of options.
    let outcome = load_env_file()
        .map_err(anyhow::Error::from)
        .and_then(|file| actix_rt::System::new().block_on(Cli::parse().run(&file)));
    outcome.unwrap_or_else(|error| {
        eprintln!("tributary: {error:#}");
        ExitCode::FAILURE
    })
}
