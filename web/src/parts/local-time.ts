// Converts between Unix seconds and the value of a datetime-local input, in the selected time zone. Pure functions.

export function inputValue(seconds: number, zone: string): string {
  const parts = new Intl.DateTimeFormat("sv-SE", {
    timeZone: zone,
    dateStyle: "short",
    timeStyle: "medium",
  }).format(new Date(seconds * 1_000));
  return parts.replace(" ", "T");
}

/** The reverse. The offset of a zone depends on the time, so it is looked up near the result. */
export function secondsOf(value: string, zone: string): number | null {
  const asUtc = Date.parse(`${value}Z`) / 1_000;
  if (Number.isNaN(asUtc)) return null;
  const offsetAt = (seconds: number) => Date.parse(`${inputValue(seconds, zone)}Z`) / 1_000 - seconds;
  const near = asUtc - offsetAt(asUtc);
  return asUtc - offsetAt(near);
}
