// The last value of each attribute, of which a measurement may have only some. Pure.
import type { Schemas } from "../api/client";

export interface LastValue {
  value: unknown;
  timestamp: number;
  /** The same, as RFC 3339. */
  at: string;
}

/** As FUTURE_TOLERANCE_SECS is by default: what is further ahead is from a clock that is wrong. */
const TOLERANCE_SECONDS = 6 * 3_600;

/** In Unix seconds. */
export const futureBegins = () => Math.ceil(Date.now() / 1_000) + TOLERANCE_SECONDS;

export const isFuture = (timestamp: number) => timestamp > futureBegins();

export type LastValuesByName = ReadonlyMap<string, LastValue>;

export function withMeasurement(
  last: LastValuesByName,
  measurement: Schemas["Measurement"],
): LastValuesByName {
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
