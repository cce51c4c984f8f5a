// The page for access rights: networks, tokens and users.
import { useNetworks } from "../parts/networks";
import { type Caller, hasRole, hasRoleInAll } from "../session/session";
import { Networks } from "./networks";
import { Tokens } from "./tokens";
import { Users } from "./users";

export function Access({ caller }: { caller: Caller }) {
  const networks = useNetworks();
  if (!hasRole(caller, "admin")) {
    return (
      <section class="empty">
        <h1>Access</h1>
        <p>Only admins can see and change access rights.</p>
      </section>
    );
  }
  return (
    <>
      <h1>Access</h1>
      <Networks canCreate={hasRoleInAll(caller, "admin")} />
      <Tokens networks={networks} caller={caller} />
      <Users networks={networks} caller={caller} />
    </>
  );
}
