// The current time by the service's clock, because the computer's clock may be wrong. It is set from the Date header of
// each response; relative times are updated every 5 s.
import { createStore } from "../store";

const TICK_MS = 5_000;

/** A Date header has whole seconds, and a response takes time: smaller differences are ignored. */
const ACCURACY_MS = 3_000;

let offsetMs = 0;

/** Unix milliseconds. */
export const now = () => Date.now() + offsetMs;

/** Unix seconds. */
export const nowSeconds = () => now() / 1_000;

export const clock = createStore(now());

export function setServiceTime(date: string | null): void {
  const difference = date === null ? Number.NaN : Date.parse(date) - Date.now();
  if (Number.isNaN(difference)) return;
  const before = offsetMs;
  offsetMs = Math.abs(difference) < ACCURACY_MS ? 0 : difference;
  if (Math.abs(offsetMs - before) > ACCURACY_MS) clock.set(now());
}

setInterval(() => {
  if (!document.hidden) clock.set(now());
}, TICK_MS);
