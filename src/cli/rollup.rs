//! `tributary rollup`: counts hours again from the rows. Called by `cli`. The service may run meanwhile.

use anyhow::ensure;
use clap::Subcommand;

use crate::domain::Timestamp;
use crate::store::{Config, Rebuilder, Store};

/// What to do with the roll-up.
#[derive(Clone, Debug, Subcommand)]
pub enum RollupCommand {
    /// Count and sum up whole hours again from the rows.
    ///
    /// Needed after rows were inserted or deleted by SQL, or restored. The service may run meanwhile; an interrupted
    /// rebuild is started again. Hours older than the retention, whose rows may have been dropped, are not lowered.
    Rebuild {
        /// The first hour: RFC 3339, as 2026-11-28T00:00:00Z. By the sensors' clocks.
        #[arg(long, value_name = "TIME")]
        from: jiff::Timestamp,
        /// The end; now if missing.
        #[arg(long, value_name = "TIME")]
        to: Option<jiff::Timestamp>,
    },
}

#[expect(clippy::print_stdout, reason = "what a command did is its output")]
pub(super) async fn run(command: RollupCommand, config: &Config) -> anyhow::Result<()> {
    let RollupCommand::Rebuild { from, to } = command;
    let to = to.map_or_else(Timestamp::now, Timestamp::from);
    let from = Timestamp::from(from);
    ensure!(from < to, "--to must be later than --from");
    ensure!(from >= Timestamp::default(), "--from must not be before 1970");
    let mut count = 0;
    // One connection for the rebuild, one for a part of it.
    let store = Store::new(&Config { readers: 2, ..config.clone() });
    let each = |sensors| {
        if sensors / 10_000 > count / 10_000 {
            println!("Counted {sensors} sensors.");
        }
        count = sensors;
    };
    Rebuilder::new(store, config).rebuild(from, to, each).await?;
    println!("Counted and summed up the rows of {count} sensors.");
    Ok(())
}
