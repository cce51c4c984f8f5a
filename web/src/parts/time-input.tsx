// An input for a time in the selected time zone.
import { useStore } from "../store";
import { inputValue, secondsOf } from "./local-time";
import { zone } from "./zone";

interface Props {
  label: string;
  /** Unix seconds. */
  value: number | null;
  change: (seconds: number | null) => void;
}

export function TimeInput({ label, value, change }: Props) {
  const shownZone = useStore(zone);
  return (
    <label>
      {label}
      <input
        type="datetime-local"
        step={1}
        value={value === null ? "" : inputValue(value, shownZone)}
        onChange={(event) => change(secondsOf(event.currentTarget.value, shownZone))}
      />
    </label>
  );
}
