//! The command line: one executable, a subcommand for each thing to do.

mod access;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::config::{
    Config, EnvFile, Inspection, api_token, default_api_url, environment, read_bench, read_faults,
    read_listen, read_mqtt, read_store,
};
use crate::store::Store;
use crate::{api, bench, listen, simulate, store, telemetry};

/// Shorter than whoever asks waits.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

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
    /// Print every setting, where it came from, and what is wrong with them; secrets are hidden.
    ///
    /// Files that settings name are read, and nothing is connected to. Exits with 1 when serve would
    /// not start with these settings.
    CheckConfig,
    /// Create or upgrade the tables of DATABASE_URL.
    Migrate,
    /// Build an index that the tables need not have.
    #[command(subcommand)]
    Index(IndexCommand),
    /// Make, list and revoke the tokens that callers of the API show.
    #[command(subcommand)]
    Token(access::TokenCommand),
    /// Create users, who sign in at the API with a password.
    #[command(subcommand)]
    User(access::UserCommand),
    /// Ask the service at HTTP_ADDR whether it lives, and exit with 1 if not; for containers, which
    /// have no other program to ask with.
    Health,
    /// Print the OpenAPI document of the API.
    ///
    /// With --types it has only what the types of a client are generated from, which is how web/openapi.json
    /// is written.
    Openapi {
        /// Leave descriptions, examples and headers out.
        #[arg(long)]
        types: bool,
    },
    /// Run a fleet of simulated sensors at the broker of MQTT_URL, and compare what they published with
    /// the service's ledger.
    ///
    /// The environment variable API_TOKEN holds the token of an admin, unless the service runs with
    /// AUTH=off.
    ///
    /// Sensors that exist in the network are used, the others are created over HTTP. They publish at
    /// QoS 1, and apply and acknowledge the configurations that they receive. A configuration that holds
    /// `"reject": true` is acknowledged with success false, so that this can be seen too. Ctrl-C ends the
    /// publishing early; the summary is still printed. Exits with 1 if an item is missing.
    Simulate(Box<simulate::Options>),
    /// Listen to everything that is published at the broker of MQTT_URL, and tell of each topic whether the
    /// service takes what is published there, or what it would have to be.
    ///
    /// Prints each topic with the number of its messages and an example. It has a session of its own, and
    /// does not disturb the service. Ctrl-C ends it early.
    Listen(listen::Options),
    /// Measure how fast the service is, on the servers of DATABASE_URL and MQTT_URL.
    ///
    /// It creates databases of its own on that server, uses a topic prefix of its own on that broker, and
    /// removes both. scripts/bench runs it on private servers.
    Bench(bench::Options),
}

/// Which index.
#[derive(Debug, Subcommand)]
pub enum IndexCommand {
    /// Let searches for a text in log messages use an index (the database needs the extension pg_trgm).
    ///
    /// The service goes on meanwhile. The index is as large as the log messages, and storing these takes
    /// longer with it. What is interrupted continues when the command is run again.
    LogSearch,
}

impl Cli {
    /// Does it.
    ///
    /// # Errors
    /// When it cannot be done; the error is one sentence for the person at the terminal.
    pub async fn run(self, env_file: &EnvFile) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve => serve().await?,
            Command::CheckConfig => return Ok(check_config(env_file)),
            Command::Migrate => migrate().await?,
            Command::Index(IndexCommand::LogSearch) => index_log_messages().await?,
            Command::Token(command) => access::token(command, &store()?).await?,
            Command::User(command) => access::user(command, &store()?).await?,
            Command::Health => health().await?,
            Command::Openapi { types } => print_document(types),
            Command::Simulate(options) => return simulate(*options).await,
            Command::Listen(options) => listen(&options).await?,
            Command::Bench(options) => {
                Box::pin(bench::run(&options, read_bench(environment)?, told_to_stop()?)).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn serve() -> anyhow::Result<()> {
    let config = Config::read(environment)?;
    let telemetry = telemetry::start(&config.telemetry)?;
    let told = told_to_stop()?;
    let outcome = App::start(config, read_faults(environment)?, telemetry.filter())
        .await?
        .run_until(told)
        .await;
    telemetry.stop();
    outcome
}

#[expect(clippy::print_stdout, reason = "what a command found is its output")]
fn check_config(env_file: &EnvFile) -> ExitCode {
    let inspection = Inspection::of(environment, env_file);
    println!("{inspection}");
    if inspection.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "what a command found is its output")]
async fn migrate() -> anyhow::Result<()> {
    let config = read_store(environment)?;
    let applied = store::migrate(&config).await.with_context(|| {
        format!("DATABASE_URL names {}", store::describe(&config.postgres, &config.ssl))
    })?;
    if applied.is_empty() {
        println!("The tables are up to date.");
    }
    for migration in applied {
        println!("Applied {migration}.");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what a command did is its output")]
async fn index_log_messages() -> anyhow::Result<()> {
    let config = read_store(environment)?;
    let done = |partition: &str| println!("Indexed {partition}.");
    store::index_log_messages(&config, done).await?;
    println!("Searches for a text in log messages use the index.");
    Ok(())
}

/// For a few statements.
fn store() -> anyhow::Result<Store> {
    Ok(Store::new(&store::Config { readers: 1, ..read_store(environment)? }))
}

#[expect(clippy::print_stdout, reason = "it is the output")]
fn print_document(types: bool) {
    let document = if types { api::document_of_types() } else { api::document() };
    println!("{document:#}");
}

async fn health() -> anyhow::Result<()> {
    let url = default_api_url();
    let Some(address) = url.strip_prefix("http://") else {
        // The certificate is for the names by which others call the service, which are not ours.
        let address = url.trim_start_matches("https://");
        tokio::net::TcpStream::connect(address).await.with_context(|| format!("at {url}"))?;
        return Ok(());
    };
    let request = awc::Client::default().get(format!("http://{address}/healthz"));
    let answer = request.timeout(HEALTH_TIMEOUT).send().await;
    let status = answer.map_err(|error| anyhow::anyhow!("at {url}: {error}"))?.status();
    anyhow::ensure!(status.is_success(), "at {url}: {status}");
    Ok(())
}

/// Fails when something that was published is not accounted for.
async fn simulate(options: simulate::Options) -> anyhow::Result<ExitCode> {
    let summary = Box::pin(simulate::run(options, read_mqtt(environment)?, api_token()?)).await?;
    summary.print();
    Ok(ExitCode::from(summary.exit_code()))
}

#[expect(clippy::print_stdout, reason = "what a command found is its output")]
async fn listen(options: &listen::Options) -> anyhow::Result<()> {
    let report = Box::pin(listen::run(options, read_listen(environment)?, told_to_stop()?)).await?;
    print!("{report}");
    Ok(())
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
