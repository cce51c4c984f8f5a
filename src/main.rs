//! The executable: reads the command line and the settings, and hands over.

use std::process::ExitCode;

use clap::Parser as _;
use tributary::cli::Cli;
use tributary::config::load_env_file;
use tributary::tls;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stderr, reason = "the last word to the person at the terminal")]
fn main() -> ExitCode {
    tls::install_provider();
    // Before the command line, whose defaults may stand in the file.
    let outcome = load_env_file()
        .map_err(anyhow::Error::from)
        .and_then(|file| actix_rt::System::new().block_on(Cli::parse().run(&file)));
    outcome.unwrap_or_else(|error| {
        eprintln!("tributary: {error:#}");
        ExitCode::FAILURE
    })
}
