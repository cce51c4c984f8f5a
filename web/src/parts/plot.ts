// Common parts of all charts: axes in the page's colours, time zone and language, and a size that follows the page.
import uPlot from "uplot";
import type { Theme } from "./theme";
import { tick } from "./zone";

export const formatNumber = (value: number | null) =>
  value === null ? "–" : value.toLocaleString(undefined, { maximumSignificantDigits: 6 });

const AXIS_WIDTH = 64;

export function frame(
  element: HTMLElement,
  height: number,
  zone: string,
  colours: Theme,
): Pick<uPlot.Options, "width" | "height" | "tzDate"> & { axes: uPlot.Axis[] } {
  const axis: uPlot.Axis = {
    stroke: colours.text,
    grid: { stroke: colours.grid, width: 1 },
    ticks: { stroke: colours.grid, width: 1 },
    font: "12px system-ui, sans-serif",
  };
  return {
    width: element.clientWidth,
    height,
    tzDate: (timestamp) => uPlot.tzDate(new Date(timestamp * 1_000), zone),
    axes: [
      {
        ...axis,
        space: 64,
        values: (_, times, __, ___, step) => times.map((time) => tick(new Date(time * 1_000), zone, step)),
      },
      { ...axis, size: AXIS_WIDTH, values: (_, ticks) => ticks.map(formatNumber) },
    ],
  };
}

/** Returns a function that stops following the size. */
export function followSize(plot: uPlot, element: HTMLElement, height: number): () => void {
  const sizes = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height }));
  sizes.observe(element);
  return () => sizes.disconnect();
}
