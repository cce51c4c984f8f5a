// How far a configuration has come, as a word with a colour.
import type { Schemas } from "../api/client";

export type State = Schemas["ConfigurationState"];

export const STATES: State[] = ["acknowledged", "published", "pending", "stale", "failed", "none"];

const MEANINGS: Record<State, string> = {
  none: "The sensor has no configuration",
  pending: "The broker does not have it yet",
  published: "The broker has it; the sensor has not answered yet",
  acknowledged: "The sensor has applied it",
  failed: "The sensor could not apply it",
  stale: "Published for more than five minutes when the sensor last spoke, and not acknowledged",
};

export function StateBadge({ state }: { state: State }) {
  return (
    <span class={`state ${state}`} title={MEANINGS[state]}>
      {state}
    </span>
  );
}
