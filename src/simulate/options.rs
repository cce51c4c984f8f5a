//! The flags of `tributary simulate`, as clap reads them. Checked one by one here; flags that contradict each
//! other are declared beside them.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use url::Url;

use crate::config::parse_duration;

const MAX_SENSORS: u64 = 1_000_000;
const MAX_PER_MESSAGE: u64 = 10_000;
const MAX_MESSAGES: u64 = 1 << 50;

/// The fleet and what it publishes; `cli.rs` documents the command.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// URL of the service
    #[arg(long, value_name = "URL", default_value_t = crate::config::default_api_url(), value_parser = api)]
    pub api: String,

    /// PEM file of the authority that signed the service's certificate, if --api is https
    /// [default: the authorities that the system trusts]
    #[arg(long, value_name = "FILE")]
    pub api_ca: Option<PathBuf>,

    /// Number of sensors [default: 20, with --replay 1]
    #[arg(long, value_name = "N", value_parser = from_1_to(MAX_SENSORS))]
    pub sensors: Option<usize>,

    /// Messages per second of each sensor
    #[arg(long, value_name = "RATE", default_value = "1",
          value_parser = |text: &str| number(text, 1e-6, 1e6))]
    pub rate: f64,

    /// Measurements in each message
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = from_1_to(MAX_PER_MESSAGE))]
    pub per_message: usize,

    /// How long to publish: 30s, 2m, 1h, 500ms or a number of seconds [default: 30s, without --messages
    /// and --replay]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Number of measurement and log messages to publish in total
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..=MAX_MESSAGES))]
    pub messages: Option<u64>,

    /// Seed of the invented values: the same seed gives the same values
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,

    /// Share of items that are invalid, each in one of many ways; the service rejects each by itself
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    pub bad: f64,

    /// Share of messages that are log messages
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent)]
    pub log_messages: f64,

    /// Number of MQTT connections that the simulated sensors share [default: one per sensor, at most 16]
    #[arg(long, value_name = "C", value_parser = from_1_to(10_000))]
    pub connections: Option<usize>,

    /// Publish a recorded series instead of invented values: a CSV file whose header names the members.
    /// Numbers stay as they are written, other text becomes strings, empty cells are left out. Each sensor
    /// publishes the series once, as fast as possible
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["rate", "bad", "log_messages", "seed"])]
    pub replay: Option<PathBuf>,

    /// Column of the series that holds the time [default: the first that reads as a date]. Times without a
    /// zone are UTC; a bare number is Unix seconds
    #[arg(long, value_name = "NAME", requires = "replay")]
    pub time_column: Option<String>,

    /// Keep the gaps of the series, FACTOR times as fast as it was recorded
    #[arg(long, value_name = "FACTOR", requires = "replay",
          value_parser = |text: &str| number(text, 1e-6, 1e12))]
    pub speed: Option<f64>,

    /// Prefix of the sensors' names: NAME-0001 and so on. Existing sensors of the network are used, the
    /// others are created. Two fleets at a time need two prefixes
    #[arg(long, value_name = "NAME", default_value = "simulated", value_parser = prefix)]
    pub prefix: String,

    /// Network of the sensors, by name or identifier [default: the network of API_TOKEN if it has one, else
    /// the default network]
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,

    /// Show no progress
    #[arg(long)]
    pub quiet: bool,
}

impl Options {
    pub(super) fn sensor_count(&self) -> usize {
        let default = if self.replay.is_some() { 1 } else { 20 };
        self.sensors.unwrap_or(default)
    }

    pub(super) fn connection_count(&self) -> usize {
        self.connections.unwrap_or(16).min(self.sensor_count())
    }

    /// None continues until everything has been published.
    pub(super) fn duration(&self) -> Option<Duration> {
        let ends_by_itself = self.messages.is_some() || self.replay.is_some();
        self.duration.or((!ends_by_itself).then_some(Duration::from_secs(30)))
    }
}

fn from_1_to(max: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=max)
}

fn api(text: &str) -> Result<String, String> {
    const FORM: &str = "expected http://host:port or https://host:port";
    let url = Url::parse(text).map_err(|error| format!("{error}; {FORM}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(FORM.into());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A share of 0 to 1, written in percent.
fn percent(text: &str) -> Result<f64, String> {
    Ok(number(text.trim_end_matches('%'), 0.0, 100.0)? / 100.0)
}

fn number(text: &str, min: f64, max: f64) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| format!("expected a number from {min} to {max}"))
}

fn prefix(text: &str) -> Result<String, String> {
    // With the number behind it, far below the service's limit.
    if !(1..=40).contains(&text.chars().count()) || text.chars().any(char::is_control) {
        return Err("expected a name of 1 to 40 characters".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn read(flags: &str) -> Option<Options> {
        let flags = ["simulate"].into_iter().chain(flags.split_whitespace());
        Command::try_parse_from(flags).ok().map(|command| command.options)
    }

    #[test]
    fn defaults_depend_on_the_content() {
        for (flags, sensors, connections, seconds) in [
            ("", 20, 16, Some(30)),
            ("--messages 5", 20, 16, None),
            ("--replay a.csv", 1, 1, None),
            ("--sensors 3 --duration 1.5h", 3, 3, Some(5_400)),
        ] {
            let options = read(flags).unwrap();
            assert_eq!(
                (options.sensor_count(), options.connection_count()),
                (sensors, connections)
            );
            assert_eq!(options.duration(), seconds.map(Duration::from_secs));
            assert_eq!((options.bad, options.log_messages), (0.0, 0.01));
        }
    }

    #[test]
    fn impossible_values_are_refused() {
        for flags in [
            "--sensors 0",
            "--rate 0",
            "--rate inf",
            "--bad 101",
            "--api ftp://localhost",
            "--api localhost:8080",
            "--per-message 0",
            "--prefix=",
            "--replay a.csv --rate 3",
            "--speed 3",
        ] {
            assert!(read(flags).is_none(), "{flags}");
        }
        for text in ["", "s", "-1", "-1s", "0", "NaN", "1d", "1e300"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration("250ms"), parse_duration("0.25"));
    }
}
