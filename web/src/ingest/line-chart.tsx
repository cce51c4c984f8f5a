// A chart of two lines over the last minutes.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { nowSeconds } from "../parts/clock";
import { followSize, formatNumber, frame } from "../parts/plot";
import { theme } from "../parts/theme";
import { zone } from "../parts/zone";
import { useStore } from "../store";

const HEIGHT = 180;

/** The shortest time axis, for the first values. */
const MIN_RANGE_S = 60;

interface Props {
  name: string;
  times: number[];
  lines: { label: string; values: (number | null)[] }[];
}

export function LineChart({ name, times, lines }: Props) {
  const container = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const shownZone = useStore(zone);
  const colours = useStore(theme);
  const data = [times, ...lines.map(({ values }) => values)] as uPlot.AlignedData;
  useEffect(() => {
    const element = container.current;
    if (!element) return;
    const strokes = [colours.line, colours.mark];
    const chart = new uPlot(
      {
        ...frame(element, HEIGHT, shownZone, colours),
        cursor: { drag: { x: false, y: false }, sync: { key: "ingest" } },
        scales: {
          x: {
            range: (_, min, max) => {
              const last = max ?? nowSeconds();
              return [Math.min(min ?? last, last - MIN_RANGE_S), last];
            },
          },
          y: { range: (_, __, max) => [0, Math.max(max * 1.1, 1)] },
        },
        series: [
          {
            value: (_, time) =>
              time === null
                ? "–"
                : new Date(time * 1_000).toLocaleTimeString(undefined, { timeZone: shownZone }),
          },
          ...lines.map(({ label }, at) => ({
            label,
            stroke: strokes[at] ?? colours.line,
            width: 1.5,
            value: (_: uPlot, value: number | null) => formatNumber(value),
          })),
        ],
      },
      data,
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
  useEffect(() => plot.current?.setData(data), [times.at(-1)]);
  return (
    <figure>
      <figcaption>{name}</figcaption>
      <div ref={container} class="chart" role="img" aria-label={`Chart of ${name}`} />
    </figure>
  );
}
