// The activity of a sensor over 28 days as one line: one cell per 4 hours, darker with more items.
import { useMemo } from "preact/hooks";
import { clock } from "../parts/clock";
import { useStore } from "../store";
import type { Buckets } from "./use-activity";

const BUCKET_MS = 14_400_000;
const CELLS = 168;
const LEVELS = 4;
const CELL_WIDTH = 2;
const HEIGHT = 16;

/** One path per level: a page has 100 strips of 168 cells, too many for one element per cell. */
function paths(buckets: Buckets, first: number): { level: number; path: string }[] {
  const most = Math.max(1, ...buckets.values());
  const byLevel: string[][] = Array.from({ length: LEVELS }, () => []);
  for (const [begin, count] of buckets) {
    const at = (begin - first) / BUCKET_MS;
    if (count === 0 || at < 0 || at >= CELLS) continue;
    const level = Math.min(LEVELS - 1, Math.floor(LEVELS * Math.sqrt(count / most)));
    byLevel[level]?.push(`M${at * CELL_WIDTH} 0h${CELL_WIDTH}v${HEIGHT}h-${CELL_WIDTH}z`);
  }
  return byLevel.map((cells, level) => ({ level, path: cells.join("") })).filter(({ path }) => path !== "");
}

export function ActivityStrip({ buckets }: { buckets: Buckets | undefined }) {
  const lastBegin = Math.floor(useStore(clock) / BUCKET_MS) * BUCKET_MS;
  const first = lastBegin - (CELLS - 1) * BUCKET_MS;
  const drawn = useMemo(() => (buckets ? paths(buckets, first) : []), [buckets, first]);
  let total = 0;
  for (const [begin, count] of buckets ?? []) if (begin >= first) total += count;
  const label = buckets ? `${total.toLocaleString()} items in 28 days` : "Loading activity";
  return (
    <svg
      class="activity"
      viewBox={`0 0 ${CELLS * CELL_WIDTH} ${HEIGHT}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={label}
    >
      <title>{label}</title>
      {drawn.map(({ level, path }) => (
        <path key={level} class={`level-${level}`} d={path} />
      ))}
    </svg>
  );
}
