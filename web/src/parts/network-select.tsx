// Selects one network or all; hidden if there is only one network.

import { NetworkOptions } from "./network-options";
import type { Network } from "./networks";

interface Props {
  networks: Network[];
  value: string;
  change: (network: string) => void;
}

export function NetworkSelect({ networks, value, change }: Props) {
  if (networks.length < 2) return null;
  return (
    <label>
      Network
      <select value={value} onChange={(event) => change(event.currentTarget.value)}>
        <option value="">All networks</option>
        <NetworkOptions networks={networks} />
      </select>
    </label>
  );
}
