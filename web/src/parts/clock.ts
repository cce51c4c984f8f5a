// The present, by the service's clock: the page's own may be wrong, and what it shows was timed by the service. Told
// by each answer's Date; relative times follow it every few seconds.
import { createStore } from "../store";

const TICK_MS = 5_000;

/** A Date has whole seconds, and an answer takes a while: a page whose clock differs less is right. */
const ACCURACY_MS = 3_000;

let ahead = 0;

/** In milliseconds since 1970. */
export const now = () => Date.now() + ahead;

/** In seconds since 1970. */
export const nowSeconds = () => now() / 1_000;

export const clock = createStore(now());

export function learnTime(date: string | null): void {
  const told = date === null ? Number.NaN : Date.parse(date) - Date.now();
  if (Number.isNaN(told)) return;
  const before = ahead;
  ahead = Math.abs(told) < ACCURACY_MS ? 0 : told;
  if (Math.abs(ahead - before) > ACCURACY_MS) clock.set(now());
}

setInterval(() => {
  if (!document.hidden) clock.set(now());
}, TICK_MS);
