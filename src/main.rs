//! Temporary: runs `simulate` only.
use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(clap::Parser)]
#[command(version)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    Simulate(tributary::simulate::Options),
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(summary) => {
            summary.print();
            summary.exit_code().into()
        }
        Err(error) => {
            eprintln!("{error:#}");
            2.into()
        }
    }
}

fn run() -> anyhow::Result<tributary::simulate::Summary> {
    tributary::config::load_env_file()?;
    let Action::Simulate(options) = Command::parse().action;
    tributary::telemetry::start(&tributary::telemetry::Config {
        filter: "info".into(),
        format: tributary::telemetry::Format::Text,
    })?;
    let mqtt = tributary::config::read_mqtt(tributary::config::environment)?;
    actix_rt::System::new().block_on(tributary::simulate::run(options, mqtt))
}
