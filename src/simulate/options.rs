//! The flags of `tributary simulate`, as clap reads them. Checked on their own here and against one
//! another where they meet.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

const MAX_SENSORS: u64 = 1_000_000;
const MAX_PER_MESSAGE: u64 = 10_000;
const MAX_RATE: f64 = 1e6;
const MAX_MESSAGES: u64 = 1 << 50;
/// A year.
const MAX_DURATION: Duration = Duration::from_secs(366 * 86_400);

/// What the fleet is and says; `cli.rs` tells what the command does.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where the service is
    #[arg(long, value_name = "URL", default_value_t = crate::config::default_api_url(), value_parser = api)]
    pub api: String,

    /// Who may sign the service's certificate, where --api is https: a PEM file
    /// [default: whomever the system trusts]
    #[arg(long, value_name = "FILE")]
    pub api_ca: Option<PathBuf>,

    /// How many sensors there are [default: 20, with --replay 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_SENSORS))]
    pub sensors: Option<u64>,

    /// Messages per second of each sensor
    #[arg(long, value_name = "RATE", default_value = "1", value_parser = rate)]
    pub rate: f64,

    /// Measurements in each message
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=MAX_PER_MESSAGE))]
    pub per_message: u64,

    /// How long to publish: 30s, 2m, 1h, 500ms or seconds [default: 30s, if neither --messages nor
    /// --replay says when to end]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,

    /// How many measurement and log messages to publish in all
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..=MAX_MESSAGES))]
    pub messages: Option<u64>,

    /// The same seed says the same
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,

    /// The share of items that are broken, each in one of many ways, to be rejected one by one
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    pub bad: f64,

    /// The share of messages that are log messages
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent)]
    pub log_messages: f64,

    /// Connections to the broker, shared by the sensors: 100,000 sockets are not the point
    /// [default: one a sensor, at most 16]
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub connections: Option<u64>,

    /// Play a recorded series instead of inventing one: a CSV file whose header names the members;
    /// numbers stay as they are written, words become strings, empty cells are left out. Every
    /// sensor plays it once, as fast as it can
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["rate", "bad", "log_messages", "seed"])]
    pub replay: Option<PathBuf>,

    /// The column of the series that is the time [default: the first that reads as a date]. Times
    /// without a zone are UTC; a bare number is Unix seconds
    #[arg(long, value_name = "NAME", requires = "replay")]
    pub time_column: Option<String>,

    /// Keep the series' own pace, so many times as fast as it was recorded
    #[arg(long, value_name = "FACTOR", requires = "replay", value_parser = speed)]
    pub speed: Option<f64>,

    /// What the sensors are named: NAME-0001 and so on. Those that the network has are used, the
    /// others created. Two fleets at a time want two names
    #[arg(long, value_name = "NAME", default_value = "simulated", value_parser = prefix)]
    pub prefix: String,

    /// The network of the sensors, by its name or its identifier [default: the one of API_TOKEN, if
    /// that is for one network, else the default network]
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,

    /// No progress bar
    #[arg(long)]
    pub quiet: bool,
}

impl Options {
    const DEFAULT_SENSORS: usize = 20;
    const DEFAULT_DURATION: Duration = Duration::from_secs(30);
    const DEFAULT_CONNECTIONS: usize = 16;

    pub(super) fn sensor_count(&self) -> usize {
        let default = if self.replay.is_some() { 1 } else { Self::DEFAULT_SENSORS };
        self.sensors.map_or(default, bounded)
    }

    pub(super) fn connection_count(&self) -> usize {
        let wanted = self.connections.map_or(Self::DEFAULT_CONNECTIONS, bounded);
        wanted.min(self.sensor_count())
    }

    pub(super) fn items_per_message(&self) -> usize {
        bounded(self.per_message)
    }

    /// None goes on until everything has been said.
    pub(super) fn publishing_time(&self) -> Option<Duration> {
        let ends_by_itself = self.messages.is_some() || self.replay.is_some();
        self.duration.or((!ends_by_itself).then_some(Self::DEFAULT_DURATION))
    }
}

fn bounded(number: u64) -> usize {
    usize::try_from(number).expect("clap has checked the range")
}

fn api(text: &str) -> Result<String, String> {
    const FORM: &str = "it takes http://host:port or https://host:port";
    let url = Url::parse(text).map_err(|error| format!("{error}; {FORM}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(FORM.into());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, 1e-6, MAX_RATE)
}

fn speed(text: &str) -> Result<f64, String> {
    number(text, 1e-6, 1e12)
}

/// A share of 0 to 1, written in percent.
fn percent(text: &str) -> Result<f64, String> {
    Ok(number(text.trim_end_matches('%'), 0.0, 100.0)? / 100.0)
}

fn number(text: &str, least: f64, most: f64) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("it takes a number from {least} to {most}"))
}

fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 4] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)];
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, seconds)| Some((text.strip_suffix(suffix)?, *seconds)))
        .unwrap_or((text, 1.0));
    number
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * unit).ok())
        .filter(|duration| (Duration::from_millis(1)..=MAX_DURATION).contains(duration))
        .ok_or_else(|| "it takes a time of 1ms to a year, such as 30s, 2m, 1h or 90".into())
}

/// The longest name with a number behind it stays far below what the service takes.
fn prefix(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if !(1..=40).contains(&length) || text.chars().any(char::is_control) {
        return Err("it takes a name of 1 to 40 characters".into());
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

    fn read(flags: &[&str]) -> Result<Options, String> {
        Command::try_parse_from(["simulate"].iter().chain(flags))
            .map(|command| command.options)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_fleet_of_twenty_runs_for_half_a_minute() {
        let options = read(&[]).unwrap();
        assert_eq!((options.sensor_count(), options.connection_count()), (20, 16));
        assert_eq!(options.publishing_time(), Some(Duration::from_secs(30)));
        assert_eq!((options.bad, options.log_messages), (0.0, 0.01));
    }

    #[test]
    fn a_series_is_played_to_its_end_by_one_sensor() {
        let options = read(&["--replay", "a.csv"]).unwrap();
        assert_eq!((options.sensor_count(), options.connection_count()), (1, 1));
        assert_eq!(options.publishing_time(), None);
        assert!(read(&["--replay", "a.csv", "--rate", "3"]).is_err());
        assert!(read(&["--speed", "3"]).unwrap_err().contains("--replay"));
    }

    #[test]
    fn times_are_read_in_every_unit() {
        for (text, milliseconds) in
            [("30s", 30_000), ("2m", 120_000), ("1.5h", 5_400_000), ("250ms", 250), ("90", 90_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1", "0", "NaN", "1d", "1e300"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for flags in [
            ["--sensors", "0"],
            ["--rate", "0"],
            ["--rate", "inf"],
            ["--bad", "101"],
            ["--api", "ftp://localhost"],
            ["--api", "localhost:8080"],
            ["--per-message", "0"],
            ["--prefix", ""],
        ] {
            assert!(read(&flags).is_err(), "{flags:?}");
        }
    }
}
