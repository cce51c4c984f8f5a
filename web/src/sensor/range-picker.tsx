// Selects the range of the charts: a preset, or two times.

import { TimeInput } from "../parts/time-input";
import { zone } from "../parts/zone";
import { useStore } from "../store";
import { type Bounds, PRESETS, type Range, sameRange } from "./range";

interface Props {
  range: Range;
  bounds: Bounds;
  change: (range: Range) => void;
}

export function RangePicker({ range, bounds, change }: Props) {
  const shownZone = useStore(zone);
  const set = (side: "from" | "to", seconds: number | null) => {
    if (seconds === null) return;
    const next = { from: bounds.from, to: bounds.to, [side]: seconds };
    if (next.to > next.from) change(next);
  };
  return (
    <fieldset class="range">
      <legend class="hidden">Range of the charts</legend>
      {PRESETS.map(({ name, seconds }) => (
        <button
          key={name}
          type="button"
          aria-pressed={sameRange(range, { last: seconds })}
          onClick={() => change({ last: seconds })}
        >
          {name}
        </button>
      ))}
      <TimeInput label="From" value={bounds.from} change={(seconds) => set("from", seconds)} />
      <TimeInput label="To" value={bounds.to} change={(seconds) => set("to", seconds)} />
      <span class="quiet">Time zone: {shownZone}. Drag in a chart to select a range.</span>
    </fieldset>
  );
}
