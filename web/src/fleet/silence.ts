// A sensor is silent if nothing was received from it for an hour.
import { nowSeconds } from "../parts/clock";

const SILENCE_S = 3_600;
const ROUND_S = 60;

/** Rounded to a minute, so that a list does not change with every reading. */
export function silentSince(): number {
  return Math.floor((nowSeconds() - SILENCE_S) / ROUND_S) * ROUND_S;
}
