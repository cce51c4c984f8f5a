// The points of a chart: mean, minimum and maximum of each bucket. Live values are added to their buckets in the same way
// as the service aggregates them. Pure functions.
import type { Schemas } from "../api/client";

export interface Point {
  at: number;
  count: number;
  min: number;
  mean: number;
  max: number;
}

/** Monday, 1970-01-05, from which the service counts its buckets. */
const ORIGIN = 4 * 86_400;

/** A distance of this many times the median distance is a gap in the line. */
const GAP = 4;

export function pointsOf(buckets: Schemas["MeasurementBucket"][], attribute: string): Point[] {
  const points: Point[] = [];
  for (const { timestamp, attributes } of buckets) {
    const numbers = attributes[attribute];
    if (numbers) points.push({ at: timestamp, ...numbers });
  }
  return points;
}

export function withValue(points: Point[], at: number, value: number, bucket: number): Point[] {
  const begin = ORIGIN + Math.floor((at - ORIGIN) / bucket) * bucket;
  const before = points.findLastIndex((point) => point.at <= begin);
  const known = points[before];
  if (known?.at === begin) {
    const count = known.count + 1;
    const mean = (known.mean * known.count + value) / count;
    const changed = {
      at: begin,
      count,
      mean,
      min: Math.min(known.min, value),
      max: Math.max(known.max, value),
    };
    return points.with(before, changed);
  }
  return points.toSpliced(before + 1, 0, { at: begin, count: 1, min: value, mean: value, max: value });
}

/** Columns in the format of uPlot; null is a gap. */
export type Columns = [number[], (number | null)[], (number | null)[], (number | null)[]];

export function columnsOf(points: Point[], bucket: number): Columns {
  const columns: Columns = [[], [], [], []];
  const steps = points.slice(1).map((point, at) => point.at - (points[at]?.at ?? 0));
  steps.sort((a, b) => a - b);
  const median = Math.max(bucket, steps[Math.floor(steps.length / 2)] ?? bucket);
  let last: number | null = null;
  for (const { at, mean, min, max } of points) {
    if (last !== null && at - last > GAP * median) {
      columns[0].push((last + at) / 2);
      for (const column of [columns[1], columns[2], columns[3]]) column.push(null);
    }
    columns[0].push(at);
    columns[1].push(mean);
    columns[2].push(min);
    columns[3].push(max);
    last = at;
  }
  return columns;
}
