// Times as an input of local time has them, in the zone that is shown. Pure.

export function inputValue(seconds: number, zone: string): string {
  const parts = new Intl.DateTimeFormat("sv-SE", {
    timeZone: zone,
    dateStyle: "short",
    timeStyle: "medium",
  }).format(new Date(seconds * 1_000));
  return parts.replace(" ", "T");
}

/** The reverse: the offset of a zone depends on the time, so it is looked up where the result would be. */
export function secondsOf(value: string, zone: string): number | null {
  const asUtc = Date.parse(`${value}Z`) / 1_000;
  if (Number.isNaN(asUtc)) return null;
  const offsetAt = (seconds: number) => Date.parse(`${inputValue(seconds, zone)}Z`) / 1_000 - seconds;
  const near = asUtc - offsetAt(asUtc);
  return asUtc - offsetAt(near);
}
