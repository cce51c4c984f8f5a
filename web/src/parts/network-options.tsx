// The networks as options of a select element.
import type { Network } from "./networks";

export function NetworkOptions({ networks }: { networks: Network[] }) {
  return (
    <>
      {networks.map((network) => (
        <option key={network.identifier} value={network.identifier}>
          {network.name}
        </option>
      ))}
    </>
  );
}
