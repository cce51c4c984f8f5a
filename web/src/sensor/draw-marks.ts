// Marks in a chart when the sensor took on another revision.
import type uPlot from "uplot";
import type { RevisionMark } from "./use-revision-marks";

const FONT_PX = 11;

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
  for (const { at, revision } of marks) {
    const x = Math.round(chart.valToPos(at, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.fillText(`r${revision}`, x + 3 * pixel, bbox.top + FONT_PX * pixel);
  }
  ctx.restore();
}
