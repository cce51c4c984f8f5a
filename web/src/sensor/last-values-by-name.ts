// The last value of each attribute. A measurement may contain only some attributes. Pure functions.
import type { Schemas } from "../api/client";

export interface LastValue {
  value: unknown;
  timestamp: number;
  /** The timestamp in RFC 3339. */
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
    // A value with a time in the future is used only if there is no other.
    const isNewer =
      !known ||
      (isFuture(known.timestamp) === isFuture(timestamp)
        ? known.timestamp <= timestamp
        : !isFuture(timestamp));
    if (isNewer) next.set(name, { value, timestamp, at });
  }
  return next;
}
