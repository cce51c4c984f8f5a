// A sensor is silent if nothing was received from it for an hour.
import { nowSeconds } from "../parts/clock";

const SILENT_AFTER_S = 3_600;
const ROUND_S = 60;

/** Rounded down to a minute, so that the query does not change with every reload. */
export function silentSince(): number {
  return Math.floor((nowSeconds() - SILENT_AFTER_S) / ROUND_S) * ROUND_S;
}
