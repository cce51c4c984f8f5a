// The filter for a range of times, which the address contains as Unix seconds.
import { TimeInput } from "../parts/time-input";

interface Props {
  from: string;
  to: string;
  change: (changes: Record<string, string>) => void;
}

const numberOf = (text: string) => (text === "" || Number.isNaN(Number(text)) ? null : Number(text));
const textOf = (seconds: number | null) => (seconds === null ? "" : String(seconds));

export function TimeFilter({ from, to, change }: Props) {
  return (
    <>
      <TimeInput
        label="From"
        value={numberOf(from)}
        change={(seconds) => change({ from: textOf(seconds) })}
      />
      <TimeInput label="To" value={numberOf(to)} change={(seconds) => change({ to: textOf(seconds) })} />
    </>
  );
}
