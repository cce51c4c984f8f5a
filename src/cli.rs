//! The command line: one executable, a subcommand for each thing to do.

mod access;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::config::{Config, api_token, environment, read_bench, read_mqtt, read_store};
use crate::sensor::Faults;
use crate::store::Store;
use crate::{bench, simulate, store, telemetry};

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("TRIBUTARY_COMMIT"), ")");

/// Takes what fleets of sensors say over MQTT and puts it into PostgreSQL, nothing lost and nothing
/// twice, and tells those sensors how to be configured.
///
/// Settings come from the environment and from a file named .env; .env.example lists them all.
#[derive(Debug, Parser)]
#[command(name = "tributary", version = VERSION)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service until SIGTERM or SIGINT.
    Serve,
    /// Create or upgrade the tables of DATABASE_URL.
    Migrate,
    /// Make, list and revoke the tokens that callers of the API show.
    #[command(subcommand)]
    Token(access::TokenCommand),
    /// Create users, who sign in at the API with a password.
    #[command(subcommand)]
    User(access::UserCommand),
    /// Run a fleet of simulated sensors on the broker of MQTT_URL, and ask the service's ledger
    /// what became of what they said.
    Simulate(Box<simulate::Options>),
    /// Measure how fast it is, against the servers of DATABASE_URL and MQTT_URL.
    ///
    /// It makes databases of its own on that server, under a topic prefix of its own on that
    /// broker, and removes them. scripts/bench runs it against private servers.
    Bench(bench::Options),
}

impl Cli {
    /// Does it.
    ///
    /// # Errors
    /// When it cannot be done; the error is one sentence for the person at the terminal.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve => serve().await?,
            Command::Migrate => migrate().await?,
            Command::Token(command) => access::token(command, &store()?).await?,
            Command::User(command) => access::user(command, &store()?).await?,
            Command::Simulate(options) => return simulate(*options).await,
            Command::Bench(options) => {
                bench::run(&options, read_bench(environment)?, told_to_stop()?).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn serve() -> anyhow::Result<()> {
    let config = Config::read(environment)?;
    telemetry::start(&config.telemetry)?;
    let told = told_to_stop()?;
    App::start(config, Faults::default()).await?.run_until(told).await
}

#[expect(clippy::print_stdout, reason = "what a command found is its output")]
async fn migrate() -> anyhow::Result<()> {
    let applied = store::migrate(&read_store(environment)?).await?;
    if applied.is_empty() {
        println!("The tables are up to date.");
    }
    for migration in applied {
        println!("Applied {migration}.");
    }
    Ok(())
}

/// For a few statements.
fn store() -> anyhow::Result<Store> {
    Ok(Store::new(&store::Config { readers: 1, ..read_store(environment)? }))
}

/// Fails when something that was published is not accounted for.
async fn simulate(options: simulate::Options) -> anyhow::Result<ExitCode> {
    let summary = Box::pin(simulate::run(options, read_mqtt(environment)?, api_token())).await?;
    summary.print();
    Ok(ExitCode::from(summary.exit_code()))
}

/// Ready from this call on, so that no signal is missed while the service starts.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
