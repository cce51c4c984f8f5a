// Draws a mark in a chart at each time when the sensor applied a revision.
import type uPlot from "uplot";
import type { RevisionMark } from "./use-revision-marks";

const FONT_PX = 11;

/** `marks` starts with the newest. */
export function drawMarks(chart: uPlot, marks: RevisionMark[], colour: string): void {
  const { ctx, bbox } = chart;
  const pixel = devicePixelRatio;
  ctx.save();
  ctx.strokeStyle = colour;
  ctx.fillStyle = colour;
  ctx.lineWidth = pixel;
  ctx.font = `${FONT_PX * pixel}px system-ui, sans-serif`;
  ctx.textAlign = "left";
  ctx.setLineDash([4 * pixel, 3 * pixel]);
  let labelled = Number.POSITIVE_INFINITY;
  for (const { at, revision } of marks) {
    const x = Math.round(chart.valToPos(at, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    // If two marks are close to each other, only the newer one gets a label.
    const label = `r${revision}`;
    if (x + ctx.measureText(label).width + 4 * pixel > labelled) continue;
    labelled = x;
    ctx.fillText(label, x + 3 * pixel, bbox.top + FONT_PX * pixel);
  }
  ctx.restore();
}
