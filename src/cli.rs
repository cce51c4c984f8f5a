//! The command line: one executable with subcommands. Parsed and run by `main`. An error is one sentence for the
//! person at the terminal.

mod access;
mod rollup;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::App;
use crate::config::{
    Config, EnvFile, Inspection, api_token, default_api_url, environment, read_bench, read_faults,
    read_listen, read_mqtt, read_store,
};
use crate::store::{EngineName, Store};
use crate::{api, bench, listen, simulate, store, telemetry};

/// Shorter than the timeout of a container's health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

/// For reading the database's engine, which `check-config` can do without.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(3);

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("TRIBUTARY_COMMIT"), ")");

/// Stores the MQTT messages of sensor fleets in PostgreSQL, each item exactly once, and publishes the sensors'
/// configurations.
///
/// Settings come from the environment and from a file named .env; .env.example lists them all.
#[derive(Debug, Parser)]
#[command(name = "tributary", version = VERSION)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service until SIGTERM or SIGINT.
    Serve,
    /// Take over the session of MQTT_CLIENT_ID from an instance that has ended, store what it holds, end the session,
    /// and exit with 0.
    ///
    /// It takes MQTT_SHARED_GROUP: the other members of the group receive what is published from then on. A running
    /// instance is drained by SIGTERM with DRAIN_ON_STOP=true. SIGTERM ends the command early; the broker then keeps the
    /// session, and the exit status is 1, as it is where the broker has no such session.
    Drain,
    /// Print every setting with its source, and all problems; secrets are hidden.
    ///
    /// Reads the files that settings name, and asks the database for its engine, for at most 3 s; connects to nothing
    /// else. Exits with 1 if serve would not start with these settings.
    CheckConfig,
    /// Create or upgrade the tables of DATABASE_URL.
    Migrate {
        /// What stores the rows: PostgreSQL itself, or one of its extensions. Another one is chosen only while the
        /// hot tables are empty; without this option the database keeps its engine, at first postgres.
        #[arg(long, value_enum)]
        engine: Option<EngineName>,
    },
    /// Build an optional index.
    #[command(subcommand)]
    Index(IndexCommand),
    /// Work on the counts and sums by hour.
    #[command(subcommand)]
    Rollup(rollup::RollupCommand),
    /// Create, list and revoke tokens of the API.
    #[command(subcommand)]
    Token(access::TokenCommand),
    /// Create users, who sign in at the API with a password.
    #[command(subcommand)]
    User(access::UserCommand),
    /// Check that the service at HTTP_ADDR is alive, and exit with 1 if not; for containers without a
    /// HTTP client.
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
    /// Existing sensors of the network are used, the others are created over HTTP. They publish at QoS 1, and
    /// apply and acknowledge the configurations that they receive. A configuration with `"reject": true` is
    /// acknowledged with success false. Ctrl-C ends the publishing early; the summary is still printed. Exits
    /// with 1 if an item is missing.
    Simulate(Box<simulate::Options>),
    /// Listen to all messages of the broker of MQTT_URL, and show for each topic whether the service accepts
    /// them, or how they would have to look.
    ///
    /// Prints each topic with its number of messages and an example. It has its own session and does not
    /// affect the service. Ctrl-C ends it early.
    Listen(listen::Options),
    /// Measure how fast the service is, on the servers of DATABASE_URL and MQTT_URL.
    ///
    /// It creates its own databases on that server, uses its own topic prefix on that broker, and removes both.
    /// scripts/bench runs it on private servers.
    Bench(bench::Options),
}

/// Which index.
#[derive(Debug, Subcommand)]
pub enum IndexCommand {
    /// Let searches for a text in log messages use an index (the database needs the extension pg_trgm).
    ///
    /// The service keeps running. The index is as large as the log messages, and slows their storage. Run the
    /// command again to continue an interrupted build.
    LogSearch,
}

impl Cli {
    /// # Errors
    /// When the command fails; the error is one sentence for the person at the terminal.
    pub async fn run(self, env_file: &EnvFile) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve => serve(Config::read(environment)?).await?,
            Command::Drain => serve(Config::read(environment)?.draining()?).await?,
            Command::CheckConfig => return Ok(check_config(env_file).await),
            Command::Migrate { engine } => migrate(engine).await?,
            Command::Index(IndexCommand::LogSearch) => index_log_messages().await?,
            Command::Rollup(command) => rollup::run(command, &read_store(environment)?).await?,
            Command::Token(command) => access::token(command, &store()?).await?,
            Command::User(command) => access::user(command, &store()?).await?,
            Command::Health => health().await?,
            Command::Openapi { types } => print_document(types),
            Command::Simulate(options) => return simulate(*options).await,
            Command::Listen(options) => listen(&options).await?,
            Command::Bench(options) => {
                Box::pin(bench::run(&options, read_bench(environment)?, stop_signal()?)).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let telemetry = telemetry::start(&config.telemetry)?;
    let mut signals = Signals::listen()?;
    let is_drain = config.drain;
    let outcome = App::start(config, read_faults(environment)?, telemetry.filter())
        .await?
        .run_until(async || signals.next().await)
        .await;
    telemetry.stop();
    if is_drain && signals.has_arrived {
        anyhow::bail!("stopped before the session was drained; the broker keeps it");
    }
    outcome
}

#[expect(clippy::print_stdout, reason = "what a command found is its output")]
async fn check_config(env_file: &EnvFile) -> ExitCode {
    let inspection = Inspection::of(environment, env_file);
    println!("{inspection}");
    let Some(config) = read_store(environment).ok().filter(|_| inspection.problems.is_empty())
    else {
        return ExitCode::FAILURE;
    };
    match tokio::time::timeout(ENGINE_TIMEOUT, store::engine_of(&config)).await {
        Ok(Ok(engine)) => println!("The database's engine is {}.", engine.name()),
        Ok(Err(error)) if error.is_unusable_setup() => {
            println!("The service would not start: {error}.");
            return ExitCode::FAILURE;
        }
        Ok(Err(error)) if error.lacks_tables() => {
            println!("The database has no engine yet: run tributary migrate.");
        }
        Ok(Err(error)) => println!("The database's engine is unknown: {error}."),
        Err(_elapsed) => println!("The database's engine is unknown: no answer within 3 s."),
    }
    ExitCode::SUCCESS
}

#[expect(clippy::print_stdout, reason = "what a command found is its output")]
async fn migrate(engine: Option<EngineName>) -> anyhow::Result<()> {
    let config = read_store(environment)?;
    let applied = store::migrate_to(&config, engine).await.with_context(|| {
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
        // The certificate is for the names that other clients use, not for the listening address.
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

/// Exits with 1 when a published item is not accounted for.
async fn simulate(options: simulate::Options) -> anyhow::Result<ExitCode> {
    let summary = Box::pin(simulate::run(options, read_mqtt(environment)?, api_token()?)).await?;
    summary.print();
    Ok(ExitCode::from(summary.exit_code()))
}

#[expect(clippy::print_stdout, reason = "what a command found is its output")]
async fn listen(options: &listen::Options) -> anyhow::Result<()> {
    let report = Box::pin(listen::run(options, read_listen(environment)?, stop_signal()?)).await?;
    print!("{report}");
    Ok(())
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    has_arrived: bool,
}

impl Signals {
    /// Listens from this call on, so that no signal is missed while the service starts.
    fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { terminate, interrupt, has_arrived: false })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        self.has_arrived = true;
    }
}

fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut signals = Signals::listen()?;
    Ok(async move { signals.next().await })
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
