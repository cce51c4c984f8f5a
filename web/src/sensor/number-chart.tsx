// The chart of one attribute, with the values received since it was loaded.
import { useMemo } from "preact/hooks";
import type { Schemas } from "../api/client";
import { Chart } from "./chart";
import type { Bounds, Range } from "./range";
import { type Point, withValue } from "./series";
import type { RevisionMark } from "./use-revision-marks";

export interface LiveValue {
  measurement: Schemas["Measurement"];
  arrivedAt: number;
}

interface Props {
  name: string;
  bounds: Bounds;
  /** Undefined while loading. */
  points: Point[] | undefined;
  live: LiveValue[];
  marks: RevisionMark[];
  select: (range: Range) => void;
}

export function NumberChart({ name, bounds, points, live, marks, select }: Props) {
  const all = useMemo(() => {
    if (!points || !bounds.isLive) return points;
    return live.reduce((all, { measurement: { timestamp, value } }) => {
      const number = value[name];
      const isShown = typeof number === "number" && timestamp >= bounds.from;
      return isShown ? withValue(all, timestamp, number, bounds.bucket) : all;
    }, points);
  }, [points, live, bounds, name]);
  return <Chart name={name} bounds={bounds} points={all} marks={marks} select={select} />;
}
