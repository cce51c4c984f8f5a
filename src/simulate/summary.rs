//! What a run ends with. Made by the run, printed by the command line: a table for people, and an
//! exit code for scripts.

use std::fmt;
use std::time::Duration;

use super::account::{Accounts, Published, Verdict};

/// A finished run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Sensors that took part.
    pub sensors: u64,
    /// Connections that they shared.
    pub connections: u64,
    /// Messages of every kind, each counted once.
    pub messages: u64,
    /// Their items.
    pub published: Published,
    /// Items that the service is expected to reject.
    pub bad_items: u64,
    /// Messages that the broker has acknowledged.
    pub acknowledged: u64,
    /// Those of them that nobody was subscribed to.
    pub unheard: u64,
    /// Messages that the broker refused.
    pub refused: u64,
    /// Messages that were sent once more after a reconnect.
    pub republished: u64,
    /// How often a connection was lost and made again.
    pub reconnects: u64,
    /// Messages that were never said, because broker or machine held the fleet up.
    pub skipped: u64,
    /// Configurations that sensors applied.
    pub configurations_applied: u64,
    /// Configurations that sensors rejected, because they asked for it.
    pub configurations_rejected: u64,
    /// Payloads on a configuration topic that were no configuration.
    pub configurations_malformed: u64,
    /// From the first message to the last acknowledgement.
    pub elapsed: Duration,
    /// The difference that the run made in the service's ledger, where it could be read.
    pub accounts: Option<Accounts>,
    /// Whether every item can be found again.
    pub verdict: Verdict,
}

impl Summary {
    /// Acknowledged messages per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub fn messages_per_second(&self) -> f64 {
        self.acknowledged as f64 / self.elapsed.as_secs_f64().max(0.001)
    }

    /// 0 where every item is accounted for, else 1.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        if self.verdict.is_good() { 0 } else { 1 }
    }

    /// Prints the table on standard output.
    #[expect(clippy::print_stdout, reason = "the summary is what the command is run for")]
    pub fn print(&self) {
        println!("{self}");
    }

    fn items(&self) -> u64 {
        self.published.measurements + self.published.log_messages + self.published.heartbeats
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, figure: u64, note: &str| {
            writeln!(
                out,
                "{name:<16}{:>13}{}{note}",
                grouped(figure),
                if note.is_empty() { "" } else { "  " }
            )
        };
        let plural = if self.connections == 1 { "" } else { "s" };
        line(
            "sensors",
            self.sensors,
            &format!("on {} connection{plural}", grouped(self.connections)),
        )?;
        line(
            "published",
            self.messages,
            &format!(
                "messages in {:.1} s, {} a second",
                self.elapsed.as_secs_f64(),
                rate(self.messages_per_second())
            ),
        )?;
        line("acknowledged", self.acknowledged, "messages by the broker")?;
        line("items", self.items(), "")?;
        line("bad items", self.bad_items, "on purpose, to be rejected")?;
        line("configurations", self.configurations_applied, "applied")?;
        for (figure, note) in [
            (self.configurations_rejected, "configurations rejected, as they asked for"),
            (self.configurations_malformed, "payloads on a configuration topic were none"),
            (self.reconnects, "reconnects"),
            (self.republished, "messages sent once more after a reconnect"),
            (self.refused, "messages REFUSED by the broker"),
            (self.unheard, "messages that NOBODY is subscribed to: is the service connected?"),
            (self.skipped, "messages skipped: broker or machine could not keep the pace"),
        ] {
            if figure > 0 {
                line("", figure, note)?;
            }
        }
        if let Some(accounts) = &self.accounts {
            writeln!(
                out,
                "\n{:<16}{:>13}{:>13}{:>13}{:>13}{:>13}",
                "", "published", "committed", "duplicate", "rejected", "in flight"
            )?;
            for (name, account) in accounts.all() {
                writeln!(
                    out,
                    "{name:<16}{:>13}{:>13}{:>13}{:>13}{:>13}",
                    grouped(account.published),
                    grouped(account.committed),
                    grouped(account.duplicate),
                    grouped(account.rejected),
                    grouped(account.in_flight),
                )?;
            }
            let rejected: u64 = accounts.all().iter().map(|(_, account)| account.rejected).sum();
            if rejected != self.bad_items {
                writeln!(
                    out,
                    "{} items were bad on purpose and {} rejected: GET /api/v1/rejections says why",
                    grouped(self.bad_items),
                    grouped(rejected)
                )?;
            }
        }
        write!(out, "\n{}", self.verdict)
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, for people")]
fn rate(per_second: f64) -> String {
    if per_second < 100.0 { format!("{per_second:.1}") } else { grouped(per_second.round() as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::account::Account;

    fn summary() -> Summary {
        let measurements = Account {
            published: 29_700,
            received: 29_700,
            committed: 29_650,
            rejected: 50,
            ..Account::default()
        };
        Summary {
            sensors: 1_000,
            connections: 16,
            messages: 29_700,
            published: Published { measurements: 29_700, ..Published::default() },
            bad_items: 50,
            acknowledged: 29_700,
            unheard: 0,
            refused: 0,
            republished: 0,
            reconnects: 0,
            skipped: 0,
            configurations_applied: 3,
            configurations_rejected: 0,
            configurations_malformed: 0,
            elapsed: Duration::from_secs(30),
            accounts: Some(Accounts { measurements, ..Accounts::default() }),
            verdict: Verdict::Exact,
        }
    }

    #[test]
    fn the_table_reads_at_a_glance() {
        let expected = "\
sensors                 1,000  on 16 connections
published              29,700  messages in 30.0 s, 990 a second
acknowledged           29,700  messages by the broker
items                  29,700
bad items                  50  on purpose, to be rejected
configurations              3  applied

                    published    committed    duplicate     rejected    in flight
measurements           29,700       29,650            0           50            0
log messages                0            0            0            0            0
heartbeats                  0            0            0            0            0

every item is accounted for: published = committed + rejected";
        assert_eq!(summary().to_string(), expected);
        assert_eq!(summary().exit_code(), 0);
    }

    #[test]
    fn what_went_wrong_shows() {
        let wrong = Summary { unheard: 7, bad_items: 1, verdict: Verdict::Missing(7), ..summary() };
        let text = wrong.to_string();
        assert!(text.contains("7  messages that NOBODY is subscribed to"), "{text}");
        assert!(text.contains("1 items were bad on purpose and 50 rejected"), "{text}");
        assert!(text.ends_with("7 items are neither committed nor rejected"), "{text}");
        assert_eq!(wrong.exit_code(), 1);
    }

    #[test]
    fn figures_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
