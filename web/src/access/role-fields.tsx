// The fields for a role and for the network that it is limited to.

import { NetworkOptions } from "../parts/network-options";
import type { Network } from "../parts/networks";
import type { Caller, Role } from "../session/session";

const ROLES: { role: Role; label: string }[] = [
  { role: "viewer", label: "viewer: read only" },
  { role: "operator", label: "operator: also configures sensors and handles rejections" },
  { role: "admin", label: "admin: also manages sensors, networks, tokens and users" },
];

interface Props {
  role: Role;
  /** Empty for all networks. */
  network: string;
  networks: Network[];
  caller: Caller;
  change: (role: Role, network: string) => void;
}

export function RoleFields({ role, network, networks, caller, change }: Props) {
  return (
    <>
      <label>
        Role
        <select value={role} onChange={(event) => change(event.currentTarget.value as Role, network)}>
          {ROLES.map(({ role, label }) => (
            <option key={role} value={role}>
              {label}
            </option>
          ))}
        </select>
      </label>
      <label>
        Network
        <select value={network} onChange={(event) => change(role, event.currentTarget.value)}>
          {caller.network === null && <option value="">all networks</option>}
          <NetworkOptions networks={networks} />
        </select>
      </label>
    </>
  );
}
