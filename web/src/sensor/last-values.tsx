// The last value of each attribute.

import { exact, zone } from "../parts/zone";
import { useStore } from "../store";
import { isFuture, type LastValuesByName } from "./last-values-by-name";

export function LastValues({ values }: { values: LastValuesByName }) {
  const shownZone = useStore(zone);
  const text = (value: unknown) =>
    typeof value === "number" ? value.toLocaleString(undefined, { maximumFractionDigits: 6 }) : String(value);
  return (
    <dl class="values" aria-label="Last values">
      {[...values]
        .sort(([a], [b]) => a.localeCompare(b))
        .map(([name, { value, timestamp, at }]) => (
          <div key={name} title={exact(new Date(at), shownZone)}>
            <dt>{name}</dt>
            <dd>
              {text(value)}
              {isFuture(timestamp) && <span class="quiet"> in the future</span>}
            </dd>
          </div>
        ))}
    </dl>
  );
}
