// The chart of one attribute: the mean as a line, minimum and maximum as a band, revisions as marks.
// Dragging selects a range.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { nowSeconds } from "../parts/clock";
import { followSize, formatNumber, frame } from "../parts/plot";
import { theme } from "../parts/theme";
import { zone } from "../parts/zone";
import { useStore } from "../store";
import { drawMarks } from "./draw-marks";
import type { Bounds, Range } from "./range";
import { columnsOf, type Point } from "./series";
import type { RevisionMark } from "./use-revision-marks";

const HEIGHT = 200;

/** The shortest range shown, for a sensor with few values. */
const MIN_RANGE_S = 120;

interface Props {
  name: string;
  bounds: Bounds;
  points: Point[] | undefined;
  marks: RevisionMark[];
  select: (range: Range) => void;
}

/** A live range moves with time, and begins at the first value if that is later. */
function shownRange({ bounds, points }: Props): [number, number] {
  if (!bounds.isLive) return [bounds.from, bounds.to];
  const now = nowSeconds();
  const from = now - (bounds.to - bounds.from);
  const first = points?.[0]?.at ?? from;
  return [Math.max(from, Math.min(first, now - MIN_RANGE_S)), now];
}

export function Chart(props: Props) {
  const { name, bounds, points, marks } = props;
  const container = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const shown = useRef(props);
  shown.current = props;
  const shownZone = useStore(zone);
  const colours = useStore(theme);

  useEffect(() => {
    const element = container.current;
    if (!element) return;
    const value = (_: uPlot, value: number | null) => formatNumber(value);
    const hidden = { stroke: "transparent", points: { show: false }, value };
    const chart = new uPlot(
      {
        ...frame(element, HEIGHT, shownZone, colours),
        cursor: { drag: { x: true, y: false, setScale: false }, sync: { key: "sensor" } },
        scales: { x: { range: () => shownRange(shown.current) } },
        series: [
          {
            value: (_, time) =>
              time === null
                ? "–"
                : new Date(time * 1_000).toLocaleTimeString(undefined, { timeZone: shownZone }),
          },
          { label: "mean", stroke: colours.line, width: 1.5, value },
          { label: "min", ...hidden },
          { label: "max", ...hidden },
        ],
        bands: [{ series: [3, 2], fill: colours.band }],
        hooks: {
          setSelect: [
            (chart) => {
              const { left, width } = chart.select;
              if (width < 2) return;
              const from = Math.floor(chart.posToVal(left, "x"));
              const to = Math.ceil(chart.posToVal(left + width, "x"));
              chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
              shown.current.select({ from, to: Math.max(to, from + 1) });
            },
          ],
          draw: [(chart) => drawMarks(chart, shown.current.marks, colours.mark)],
        },
      },
      columnsOf(shown.current.points ?? [], shown.current.bounds.bucket),
      element,
    );
    plot.current = chart;
    const unfollow = followSize(chart, element, HEIGHT);
    return () => {
      unfollow();
      chart.destroy();
      plot.current = null;
    };
  }, [shownZone, colours]);

  useEffect(() => {
    if (points) plot.current?.setData(columnsOf(points, bounds.bucket));
  }, [points, bounds]);
  useEffect(() => plot.current?.redraw(false), [marks]);

  return (
    <figure>
      <figcaption>{name}</figcaption>
      <div ref={container} class="chart" role="img" aria-label={`Chart of ${name}`} />
      {points && points.length === 0 && <p class="quiet">No values in this range.</p>}
    </figure>
  );
}
