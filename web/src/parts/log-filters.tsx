// Filters log messages by severity and by text.
import type { Schemas } from "../api/client";

type Severity = Schemas["Severity"];

const SEVERITIES: Severity[] = ["error", "warning", "info"];

export interface LogFilterState {
  /** Empty for all. */
  severities: Severity[];
  text: string;
}

export const NO_LOG_FILTER: LogFilterState = { severities: [], text: "" };

interface Props {
  filter: LogFilterState;
  change: (filter: LogFilterState) => void;
}

export function LogFilters({ filter, change }: Props) {
  const toggle = (severity: Severity) => {
    const { severities } = filter;
    const next = severities.includes(severity)
      ? severities.filter((it) => it !== severity)
      : [...severities, severity];
    change({ ...filter, severities: next });
  };
  return (
    <search class="filters">
      <label class="wide">
        Message contains
        <input
          type="search"
          value={filter.text}
          maxLength={1_000}
          onInput={(event) => change({ ...filter, text: event.currentTarget.value })}
        />
      </label>
      <fieldset class="severities">
        <legend>Severity</legend>
        {SEVERITIES.map((severity) => (
          <button
            key={severity}
            type="button"
            aria-pressed={filter.severities.includes(severity)}
            onClick={() => toggle(severity)}
          >
            {severity}
          </button>
        ))}
      </fieldset>
    </search>
  );
}
