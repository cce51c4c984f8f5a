//! The result of a run. Made by the run, printed by the command line: a table for people, an exit code for
//! scripts.

use std::fmt;
use std::time::Duration;

use super::balance::{Balances, LedgerCheck};
use crate::load::{Totals, count};

/// A finished run.
#[derive(Clone, Debug)]
pub struct Summary {
    pub(super) sensors: usize,
    pub(super) connections: usize,
    pub(super) totals: Totals,
    /// From the first message to the last acknowledgement.
    pub(super) elapsed: Duration,
    /// None if the ledger could not be compared.
    pub(super) balances: Option<Balances>,
    pub(super) check: LedgerCheck,
}

impl Summary {
    /// 0 if every item is accounted for, else 1.
    pub const fn exit_code(&self) -> u8 {
        if self.check.is_good() { 0 } else { 1 }
    }

    /// Prints the table on standard output.
    #[expect(clippy::print_stdout, reason = "the summary is the command's output")]
    pub fn print(&self) {
        println!("{self}");
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { account, acknowledged, .. } = &self.totals;
        let seconds = self.elapsed.as_secs_f64().max(0.001);
        let rate = match *acknowledged as f64 / seconds {
            slow if slow < 100.0 => format!("{slow:.1}"),
            fast => count(fast.round() as u64),
        };
        let plural = if self.connections == 1 { "" } else { "s" };
        let on = format!("on {} connection{plural}", count(self.connections as u64));
        let published = format!("messages in {seconds:.1} s, {rate} a second");
        let mut line = |name: &str, figure: u64, note: &str| {
            let text = format!("{name:<16}{:>13}  {note}", count(figure));
            writeln!(out, "{}", text.trim_end())
        };
        line("sensors", self.sensors as u64, &on)?;
        line("published", account.messages, &published)?;
        line("acknowledged", *acknowledged, "messages by the broker")?;
        line("items", account.items(), "")?;
        line("bad items", account.bad(), "on purpose, to be rejected")?;
        line("configurations", self.totals.configurations.applied, "applied")?;
        for (figure, note) in [
            (self.totals.configurations.rejected, "configurations rejected, as they asked for"),
            (self.totals.configurations.malformed, "payloads on a configuration topic were none"),
            (self.totals.reconnects, "reconnects"),
            (self.totals.republished, "messages sent again after a reconnect"),
            (self.totals.refused, "messages REFUSED by the broker"),
            (
                self.totals.without_subscriber,
                "messages without a subscriber: is the service connected?",
            ),
            (self.totals.skipped, "messages skipped: broker or machine could not keep the pace"),
        ] {
            if figure > 0 {
                line("", figure, note)?;
            }
        }
        if let Some(Balances(balances)) = &self.balances {
            writeln!(out)?;
            let mut row = |name: &str, cells: [&str; 5]| {
                write!(out, "{name:<16}")?;
                cells.iter().try_for_each(|cell| write!(out, "{cell:>13}"))?;
                writeln!(out)
            };
            row("", ["published", "committed", "duplicate", "rejected", "in flight"])?;
            for (name, it) in ["measurements", "log messages", "heartbeats"].iter().zip(balances) {
                let ledger = &it.ledger;
                let cells = [
                    it.published,
                    ledger.committed,
                    ledger.duplicate,
                    ledger.rejected,
                    ledger.in_flight,
                ];
                row(name, cells.map(count).each_ref().map(String::as_str))?;
            }
            let rejected: u64 = balances.iter().map(|it| it.ledger.rejected).sum();
            if rejected != account.bad() {
                let (bad, rejected) = (count(account.bad()), count(rejected));
                writeln!(
                    out,
                    "{bad} items were bad on purpose and {rejected} rejected: GET /api/v1/rejections says why"
                )?;
            }
        }
        write!(out, "\n{}", self.check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tour of the README shows the rest.
    #[test]
    fn problems_are_shown() {
        let mut totals =
            Totals { without_subscriber: 7, acknowledged: 29_700, ..Totals::default() };
        totals.account.kinds[0].bad = 1;
        let mut balances = Balances::default();
        balances.0[0].published = 29_700;
        balances.0[0].ledger.committed = 29_643;
        balances.0[0].ledger.rejected = 50;
        let check = balances.check(false);
        let (balances, elapsed) = (Some(balances), Duration::from_secs(30));
        let summary = Summary { sensors: 1, connections: 2, totals, elapsed, balances, check };
        let expected = "
                            7  messages without a subscriber: is the service connected?

                    published    committed    duplicate     rejected    in flight
measurements           29,700       29,643            0           50            0
log messages                0            0            0            0            0
heartbeats                  0            0            0            0            0
1 items were bad on purpose and 50 rejected: GET /api/v1/rejections says why

NOT accounted for: 7 items are neither committed nor rejected";
        assert!(summary.to_string().ends_with(expected), "{summary}");
        assert_eq!(summary.exit_code(), 1);
    }
}
