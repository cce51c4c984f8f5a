// Who is silent: a sensor that was not heard for an hour.
const SILENCE_S = 3_600;
const ROUND_S = 60;

/** Rounded to a minute, so that a list does not change with every reading. */
export function silentSince(): number {
  return Math.floor((Date.now() / 1_000 - SILENCE_S) / ROUND_S) * ROUND_S;
}
