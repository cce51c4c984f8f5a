// A role, and where it holds.

import { NetworkOptions } from "../parts/network-options";
import type { Network } from "../parts/networks";
import type { Caller, Role } from "../session/session";

const ROLES: { role: Role; may: string }[] = [
  { role: "viewer", may: "viewer: reads" },
  { role: "operator", may: "operator: also configures and replays" },
  { role: "admin", may: "admin: also manages sensors and access" },
];

interface Props {
  role: Role;
  /** "": all. */
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
          {ROLES.map(({ role, may }) => (
            <option key={role} value={role}>
              {may}
            </option>
          ))}
        </select>
      </label>
      <label>
        In
        <select value={network} onChange={(event) => change(role, event.currentTarget.value)}>
          {caller.network === null && <option value="">all networks</option>}
          <NetworkOptions networks={networks} />
        </select>
      </label>
    </>
  );
}
