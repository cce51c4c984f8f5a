// The time range of the charts, and the length of the buckets that the service aggregates for it.

export const PRESETS = [
  { name: "1 h", seconds: 3_600 },
  { name: "24 h", seconds: 86_400 },
  { name: "7 d", seconds: 7 * 86_400 },
  { name: "28 d", seconds: 28 * 86_400 },
] as const;

/** The last `last` seconds, or the range between two times in Unix seconds. */
export type Range = { last: number } | { from: number; to: number };

export interface Bounds {
  from: number;
  to: number;
  bucket: number;
  /** Whether new values belong to the range. */
  isLive: boolean;
}

const MAX_POINTS = 1_000;
const BUCKETS = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400, 604_800,
];
const LONGEST_BUCKET = 30 * 86_400;

export function bounds(range: Range, now: number): Bounds {
  const isLive = "last" in range;
  const [from, to] = isLive ? [now - range.last, now] : [range.from, range.to];
  const bucket = BUCKETS.find((bucket) => (to - from) / bucket <= MAX_POINTS - 1) ?? LONGEST_BUCKET;
  return { from, to, bucket, isLive };
}

export function sameRange(a: Range, b: Range): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
