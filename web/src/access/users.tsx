// The list of users, who sign in with a password. Users are created, changed and deleted here.
import { useState } from "preact/hooks";
import { body, client, type Schemas } from "../api/client";
import { Confirm } from "../parts/confirm";
import type { Network } from "../parts/networks";
import { Pager, usePages } from "../parts/pager";
import { ProblemMessage } from "../parts/problem-message";
import { Scrolls } from "../parts/scrolls";
import { Time } from "../parts/time";
import { useResource } from "../parts/use-resource";
import type { Caller } from "../session/session";
import { UserDialog } from "./user-dialog";

type User = Schemas["UserItem"];

interface Props {
  networks: Network[];
  caller: Caller;
}

export function Users({ networks, caller }: Props) {
  const pages = usePages("users");
  const list = useResource(
    (signal) =>
      body(
        client.GET("/api/v1/users", {
          signal,
          params: { query: pages.cursor ? { cursor: pages.cursor } : {} },
        }),
      ),
    [pages.cursor],
  );
  const [open, setOpen] = useState<{ what: "create" } | { what: "change" | "delete"; user: User } | null>(
    null,
  );
  const close = () => setOpen(null);
  const names = new Map(networks.map((network) => [network.identifier, network.name]));
  return (
    <section aria-labelledby="users">
      <div class="title">
        <h2 id="users">Users</h2>
        <button type="button" onClick={() => setOpen({ what: "create" })}>
          Create a user
        </button>
      </div>
      <ProblemMessage problem={list.problem} retry={list.reload} />
      {list.data?.items.length === 0 && (
        <p class="quiet">There are no users. A user signs in with a name and a password.</p>
      )}
      {list.data && list.data.items.length > 0 && (
        <Scrolls labelledBy="users">
          <table class="small" aria-labelledby="users">
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">Role</th>
                <th scope="col">Network</th>
                <th scope="col">Created</th>
                <th scope="col">Actions</th>
              </tr>
            </thead>
            <tbody>
              {list.data.items.map((user) => (
                <tr key={user.identifier}>
                  <th scope="row">{user.name}</th>
                  <td>{user.role}</td>
                  <td>{user.network ? (names.get(user.network) ?? user.network) : "all networks"}</td>
                  <td>
                    <Time at={user.creation_timestamp} />
                  </td>
                  <td class="buttons">
                    <button
                      type="button"
                      aria-label={`Change ${user.name}`}
                      onClick={() => setOpen({ what: "change", user })}
                    >
                      Change
                    </button>
                    <button
                      type="button"
                      class="danger"
                      aria-label={`Delete ${user.name}`}
                      onClick={() => setOpen({ what: "delete", user })}
                    >
                      Delete
                    </button>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scrolls>
      )}
      <Pager pages={pages} next={list.data?.next} />
      {(open?.what === "create" || open?.what === "change") && (
        <UserDialog
          user={open.what === "change" ? open.user : null}
          networks={networks}
          caller={caller}
          close={close}
          saved={list.reload}
        />
      )}
      {open?.what === "delete" && (
        <Confirm
          title="Delete user"
          text={`The user ${open.user.name} will be deleted, and all sessions of this user end immediately.`}
          actName="Delete"
          close={close}
          act={async () => {
            await body(
              client.DELETE("/api/v1/users/{user}", { params: { path: { user: open.user.identifier } } }),
            );
            list.reload();
          }}
        />
      )}
    </section>
  );
}
