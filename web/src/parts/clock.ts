// The present, as shown: it moves on every few seconds, and all relative times with it.
import { createStore } from "../store";

const TICK_MS = 5_000;

export const clock = createStore(Date.now());

setInterval(() => {
  if (!document.hidden) clock.set(Date.now());
}, TICK_MS);
