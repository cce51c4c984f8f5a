// Reads the counters of /metrics that the ingest charts show. Pure functions.

/** Cumulative counts by the upper bound of the bucket, in seconds. */
export type Histogram = ReadonlyMap<number, number>;

export interface Counters {
  received: number;
  committed: number;
  commit: Histogram;
  puback: Histogram;
}

const LINE = /^([a-z_]+)(?:\{([^}]*)\})? ([^ ]+)/;

export function parseMetrics(text: string): Counters {
  let [received, committed] = [0, 0];
  const [commit, puback] = [new Map<number, number>(), new Map<number, number>()];
  const histograms: Record<string, Map<number, number>> = {
    tributary_commit_seconds_bucket: commit,
    tributary_puback_seconds_bucket: puback,
  };
  for (const line of text.split("\n")) {
    const [, name = "", labels = "", value = ""] = LINE.exec(line) ?? [];
    if (name === "tributary_items_total") {
      if (labels.includes('outcome="received"')) received += Number(value);
      if (labels.includes('outcome="committed"')) committed += Number(value);
    }
    const bound = histograms[name] && /le="([^"]+)"/.exec(labels)?.[1];
    if (bound)
      histograms[name]?.set(bound === "+Inf" ? Number.POSITIVE_INFINITY : Number(bound), Number(value));
  }
  return { received, committed, commit, puback };
}

/** The quantile, in seconds, of the observations between two readings. */
export function quantile(before: Histogram, after: Histogram, share: number): number | null {
  const bounds = [...after.keys()].sort((a, b) => a - b);
  const count = (bound: number) => (after.get(bound) ?? 0) - (before.get(bound) ?? 0);
  const total = count(Number.POSITIVE_INFINITY);
  if (total <= 0) return null;
  let [below, lower] = [0, 0];
  for (const bound of bounds) {
    const upTo = count(bound);
    if (upTo >= share * total) {
      if (bound === Number.POSITIVE_INFINITY) return lower;
      return lower + ((bound - lower) * (share * total - below)) / Math.max(1, upTo - below);
    }
    [below, lower] = [upTo, bound];
  }
  return null;
}
