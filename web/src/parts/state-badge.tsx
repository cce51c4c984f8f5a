// The state of a configuration, with a colour.
import type { Schemas } from "../api/client";

export type State = Schemas["ConfigurationState"];

export const STATES: State[] = ["acknowledged", "published", "pending", "stale", "failed", "none"];

const MEANINGS: Record<State, string> = {
  none: "The sensor has no configuration",
  pending: "The configuration is not published yet",
  published: "The configuration is published; the sensor has not acknowledged it yet",
  acknowledged: "The sensor has applied the configuration",
  failed: "The sensor could not apply the configuration",
  stale: "Not acknowledged, although the sensor sent a message more than 5 minutes after the publication",
};

export function StateBadge({ state }: { state: State }) {
  return (
    <span class={`state ${state}`} title={MEANINGS[state]}>
      {state}
    </span>
  );
}
