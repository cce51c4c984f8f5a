// The ledger: received = committed + duplicate + rejected + in flight, per kind. The difference must be zero.

import { useId } from "preact/hooks";
import type { Schemas } from "../api/client";
import { Scrolls } from "../parts/scrolls";

const KINDS = [
  ["measurements", "Measurements"],
  ["log_messages", "Log messages"],
  ["heartbeats", "Heartbeats"],
  ["unknown", "Unknown kind"],
] as const;

export function differenceOf(entry: Schemas["LedgerEntry"]): number {
  return entry.received - entry.committed - entry.duplicate - entry.rejected - entry.in_flight;
}

export function LedgerTable({ name, ledger }: { name: string; ledger: Schemas["LedgerSnapshot"] }) {
  const id = useId();
  return (
    <Scrolls labelledBy={id}>
      <table class="ledger" aria-labelledby={id}>
        <caption id={id}>{name}</caption>
        <thead>
          <tr>
            <th scope="col">Items</th>
            <th scope="col">Received</th>
            <th scope="col">Committed</th>
            <th scope="col">Duplicate</th>
            <th scope="col">Rejected</th>
            <th scope="col">In flight</th>
            <th scope="col" title="Received − committed − duplicate − rejected − in flight; must be zero">
              Difference
            </th>
          </tr>
        </thead>
        <tbody>
          {KINDS.map(([kind, name]) => {
            const entry = ledger[kind];
            const difference = differenceOf(entry);
            return (
              <tr key={kind}>
                <th scope="row">{name}</th>
                {[entry.received, entry.committed, entry.duplicate, entry.rejected, entry.in_flight].map(
                  (count, at) => (
                    <td key={at} class="number">
                      {count.toLocaleString()}
                    </td>
                  ),
                )}
                <td class={`number ${difference === 0 ? "balanced" : "failed-text"}`}>
                  {difference.toLocaleString()}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </Scrolls>
  );
}
