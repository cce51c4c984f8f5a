// Shows the last value of each attribute.

import { exact, zone } from "../parts/zone";
import { useStore } from "../store";
import type { LastValuesByName } from "./last-values-by-name";

interface Props {
  values: LastValuesByName;
  /** Unix seconds. */
  futureBegins: number;
}

export function LastValues({ values, futureBegins }: Props) {
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
              {timestamp > futureBegins && <span class="quiet"> (time in the future)</span>}
            </dd>
          </div>
        ))}
    </dl>
  );
}
