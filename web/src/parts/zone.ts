// The time zone in which times are shown: the browser's zone or UTC. Formats times.
import { createStore } from "../store";

const KEY = "tributary.utc";
export const LOCAL_ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

export const zone = createStore<string>(localStorage.getItem(KEY) === null ? LOCAL_ZONE : "UTC");

export function toggleZone(): void {
  if (zone.get() === "UTC") {
    localStorage.removeItem(KEY);
    zone.set(LOCAL_ZONE);
  } else {
    localStorage.setItem(KEY, "yes");
    zone.set("UTC");
  }
}

export function exact(time: Date, zone: string): string {
  return time.toLocaleString(undefined, {
    timeZone: zone,
    year: "numeric",
    month: "short",
    day: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    timeZoneName: "short",
  });
}

/** The label of a tick on a time axis; `step` is the distance of the ticks in seconds. */
export function tick(time: Date, zone: string, step: number): string {
  const day: Intl.DateTimeFormatOptions = { month: "short", day: "numeric" };
  const minute: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit", hour12: false };
  const parts = step >= 86_400 ? day : step >= 60 ? minute : { ...minute, second: "2-digit" as const };
  const text = time.toLocaleString(undefined, { timeZone: zone, ...parts });
  const isMidnight = step < 86_400 && /^(00|24):00(:00)?$/.test(text);
  return isMidnight ? time.toLocaleString(undefined, { timeZone: zone, ...day }) : text;
}

/** Without the year and the zone, for tables of recent times. */
export function short(time: Date, zone: string): string {
  return time.toLocaleString(undefined, {
    timeZone: zone,
    month: "short",
    day: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
  });
}

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];
const format = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "short" });

/** Clocks differ a little: a time that is less ahead counts as now. */
const AHEAD_S = 60;

export function relative(time: Date, now: number): string {
  const seconds = Math.round((time.getTime() - now) / 1_000);
  if (seconds > -2 && seconds < AHEAD_S) return "now";
  for (const [unit, length] of STEPS) {
    if (Math.abs(seconds) >= length) return format.format(Math.trunc(seconds / length), unit);
  }
  return "now";
}
