// The number of items of each sensor on the page, per 4 hours over 28 days. Counts only grow, so the greater of
// two counts is the newer one, and the stream and the response may arrive in any order.
import { useCallback, useMemo, useState } from "preact/hooks";
import { body, client, type Schemas } from "../api/client";
import { useResource } from "../parts/use-resource";

/** Item counts by the begin of the bucket, in milliseconds. */
export type Buckets = ReadonlyMap<number, number>;

export interface Activity {
  of(sensor: string): Buckets | undefined;
  apply(change: Schemas["FleetChange"]): void;
  reload(): void;
}

const MAX_SENSORS = 100;

function merge(known: Buckets | undefined, buckets: Schemas["FleetBucket"][]): Buckets {
  const merged = new Map(known);
  for (const { bucket, measurements, log_messages, heartbeats } of buckets) {
    const begin = Date.parse(bucket);
    merged.set(begin, Math.max(merged.get(begin) ?? 0, measurements + log_messages + heartbeats));
  }
  return merged;
}

export function useActivity(sensors: string[]): Activity {
  const shown = [...sensors].sort();
  const key = shown.join(",");
  const [changes, setChanges] = useState<ReadonlyMap<string, Buckets>>(new Map());
  const read = useResource(
    async (signal) => {
      if (key === "") return new Map<string, Buckets>();
      const query = { sensors: shown, limit: MAX_SENSORS };
      const found = new Map<string, Buckets>();
      let cursor: string | undefined;
      do {
        const page = await body(
          client.GET("/api/v1/activity", {
            signal,
            params: { query: { ...query, ...(cursor && { cursor }) } },
          }),
        );
        for (const { identifier, buckets } of page.items) found.set(identifier, merge(undefined, buckets));
        cursor = page.next ?? undefined;
      } while (cursor !== undefined);
      return found;
    },
    [key],
  );
  const visible = useMemo(() => new Set(shown), [key]);
  const apply = useCallback(
    (change: Schemas["FleetChange"]) => {
      const mine = change.sensors.filter(({ identifier }) => visible.has(identifier));
      if (mine.length === 0) return;
      setChanges((changes) => {
        const next = new Map([...changes].filter(([sensor]) => visible.has(sensor)));
        for (const { identifier, buckets } of mine)
          next.set(identifier, merge(next.get(identifier), buckets));
        return next;
      });
    },
    [visible],
  );
  const of = (sensor: string): Buckets | undefined => {
    const [counts, newer] = [read.data?.get(sensor), changes.get(sensor)];
    if (!newer) return counts ?? (read.data ? new Map() : undefined);
    const merged = new Map(counts);
    for (const [begin, count] of newer) merged.set(begin, Math.max(merged.get(begin) ?? 0, count));
    return merged;
  };
  return { of, apply, reload: read.reload };
}
