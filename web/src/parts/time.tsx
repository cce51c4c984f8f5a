// Shows a time: relative, with the exact time as tooltip, or exact.
import { useStore } from "../store";
import { clock, now } from "./clock";
import { exact, relative, short, zone } from "./zone";

interface Props {
  at: string | null | undefined;
  as?: "relative" | "short" | "exact";
  none?: string;
}

export function Time({ at, as = "relative", none = "never" }: Props) {
  const shownNow = useStore(clock);
  const shownZone = useStore(zone);
  if (!at) return <span class="quiet">{none}</span>;
  const time = new Date(at);
  const title = exact(time, shownZone);
  const text = {
    relative: () => relative(time, Math.max(shownNow, now() - 5_000)),
    short: () => short(time, shownZone),
    exact: () => title,
  };
  return (
    <time dateTime={at} title={title}>
      {text[as]()}
    </time>
  );
}
