//! The executable: reads the command line and the settings, and hands over.

use std::process::ExitCode;

use clap::Parser as _;
use tributary::cli::Cli;
use tributary::config::load_env_file;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stderr, reason = "the last word to the person at the terminal")]
fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = load_env_file()
        .map_err(anyhow::Error::from)
        .and_then(|()| actix_rt::System::new().block_on(cli.run()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tributary: {error:#}");
            ExitCode::FAILURE
        }
    }
}
