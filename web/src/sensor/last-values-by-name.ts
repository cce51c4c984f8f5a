// The last value of each attribute, of which a measurement may have only some. Pure.
import type { Schemas } from "../api/client";

export interface LastValue {
  value: unknown;
  timestamp: number;
  /** The same, as RFC 3339. */
  at: string;
}

export type LastValuesByName = ReadonlyMap<string, LastValue>;

export function withMeasurement(
  last: LastValuesByName,
  measurement: Schemas["Measurement"],
  futureBegins: number,
): LastValuesByName {
  const isFuture = (timestamp: number) => timestamp > futureBegins;
  const { timestamp, creation_timestamp: at } = measurement;
  const next = new Map(last);
  for (const [name, value] of Object.entries(measurement.value)) {
    const known = next.get(name);
    // What is of the future stands only where there is nothing else.
    const isNewer =
      !known ||
      (isFuture(known.timestamp) === isFuture(timestamp)
        ? known.timestamp <= timestamp
        : !isFuture(timestamp));
    if (isNewer) next.set(name, { value, timestamp, at });
  }
  return next;
}
