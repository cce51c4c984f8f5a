// The table of running instances, and the sum of their ledgers.
import type { Schemas } from "../api/client";
import { Scrolls } from "../parts/scrolls";
import { Time } from "../parts/time";

type Entry = Schemas["LedgerEntry"];
type Ledger = Schemas["LedgerSnapshot"];

function total(entries: readonly Entry[]): Entry {
  const names = [
    "received",
    "committed",
    "duplicate",
    "rejected",
    "in_flight",
    "released",
    "replayed",
  ] as const;
  const sums = names.map((name) => [name, entries.reduce((sum, entry) => sum + (entry[name] ?? 0), 0)]);
  return Object.fromEntries(sums);
}

export function totalLedger(ledgers: readonly Ledger[]): Ledger {
  const of = (kind: keyof Ledger) => total(ledgers.map((ledger) => ledger[kind]));
  return {
    measurements: of("measurements"),
    log_messages: of("log_messages"),
    heartbeats: of("heartbeats"),
    unknown: of("unknown"),
  };
}

export function InstanceTable({ instances }: { instances: readonly Schemas["Instance"][] }) {
  return (
    <section aria-labelledby="instances">
      <h2 id="instances">Instances</h2>
      <Scrolls labelledBy="instances">
        <table class="small" aria-labelledby="instances">
          <thead>
            <tr>
              {["Instance", "Version", "Started", "Leader"].map((name) => (
                <th key={name} scope="col">
                  {name}
                </th>
              ))}
              {["Received", "Committed", "Duplicate", "Rejected", "In flight", "Unacknowledged messages"].map(
                (name) => (
                  <th key={name} scope="col" class="number">
                    {name}
                  </th>
                ),
              )}
            </tr>
          </thead>
          <tbody>
            {instances.map((it) => {
              const sum = total(Object.values(it.ledger));
              const counts = [sum.received, sum.committed, sum.duplicate, sum.rejected, sum.in_flight];
              return (
                <tr key={it.identifier}>
                  <th scope="row" title={`${it.host}, ${it.identifier}`}>
                    {it.client_id}
                    {it.is_self && " (this instance)"}
                    {it.differs && <span class="failed-text"> (different topic prefix or broker)</span>}
                  </th>
                  <td>{it.version}</td>
                  <td>
                    <Time at={it.started_at} />
                  </td>
                  <td>{it.is_leader ? "yes" : "no"}</td>
                  {[...counts, it.window_messages].map((count, at) => (
                    <td key={at} class="number">
                      {count.toLocaleString()}
                    </td>
                  ))}
                </tr>
              );
            })}
          </tbody>
        </table>
      </Scrolls>
    </section>
  );
}
