// The colours of charts, which are drawn on a canvas: read from the style sheet for the light or dark scheme.
import { createStore } from "../store";

export interface Theme {
  text: string;
  grid: string;
  line: string;
  band: string;
  mark: string;
}

function read(): Theme {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return {
    text: colour("text-quiet"),
    grid: colour("line"),
    line: colour("chart-line"),
    band: colour("chart-band"),
    mark: colour("chart-mark"),
  };
}

export const theme = createStore(read());

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme.set(read()));
