// The number of sensors in each state. Each count is a button that filters by its state.
import type { Schemas } from "../api/client";
import { STATES, type State } from "../parts/state-badge";

interface Props {
  counts: Schemas["SensorSummary"] | undefined;
  state: State | "";
  silent: boolean;
  choose: (state: State | "", silent: boolean) => void;
}

export function FleetCounts({ counts, state, silent, choose }: Props) {
  const number = (count: number | undefined) => (count === undefined ? "…" : count.toLocaleString());
  return (
    <fieldset class="counts">
      <legend class="hidden">Show sensors by state</legend>
      <button type="button" aria-pressed={state === "" && !silent} onClick={() => choose("", false)}>
        <strong>{number(counts?.sensors)}</strong> all
      </button>
      {STATES.map((it) => (
        <button
          key={it}
          type="button"
          class={`count ${it}`}
          aria-pressed={state === it}
          onClick={() => choose(state === it ? "" : it, silent)}
        >
          <strong>{number(counts?.configuration_states[it])}</strong> {it === "none" ? "not configured" : it}
        </button>
      ))}
      <button
        type="button"
        class="count silent"
        aria-pressed={silent}
        title="No message received in the last hour"
        onClick={() => choose(state, !silent)}
      >
        <strong>{number(counts?.silent)}</strong> silent
      </button>
    </fieldset>
  );
}
