// The list of tokens, which programs use. Tokens are created and revoked here.
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
import { CreateToken } from "./create-token";

interface Props {
  networks: Network[];
  caller: Caller;
}

export function Tokens({ networks, caller }: Props) {
  const pages = usePages("tokens");
  const list = useResource(
    (signal) =>
      body(
        client.GET("/api/v1/tokens", {
          signal,
          params: { query: pages.cursor ? { cursor: pages.cursor } : {} },
        }),
      ),
    [pages.cursor],
  );
  const [creating, setCreating] = useState(false);
  const [revoking, setRevoking] = useState<Schemas["TokenItem"] | null>(null);
  const names = new Map(networks.map((network) => [network.identifier, network.name]));
  return (
    <section aria-labelledby="tokens">
      <div class="title">
        <h2 id="tokens">Tokens</h2>
        <button type="button" onClick={() => setCreating(true)}>
          Create a token
        </button>
      </div>
      <ProblemMessage problem={list.problem} retry={list.reload} />
      {list.data?.items.length === 0 && (
        <p class="quiet">There are no tokens. Programs need a token to call the API.</p>
      )}
      {list.data && list.data.items.length > 0 && (
        <Scrolls labelledBy="tokens">
          <table class="small" aria-labelledby="tokens">
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">Role</th>
                <th scope="col">Network</th>
                <th scope="col">Created</th>
                <th scope="col">Expires</th>
                <th scope="col">Last used</th>
                <th scope="col">Actions</th>
              </tr>
            </thead>
            <tbody>
              {list.data.items.map((token) => (
                <tr key={token.identifier}>
                  <th scope="row">{token.name}</th>
                  <td>{token.role}</td>
                  <td>{token.network ? (names.get(token.network) ?? token.network) : "all networks"}</td>
                  <td>
                    <Time at={token.creation_timestamp} />
                  </td>
                  <td>
                    <Time at={token.expiry_timestamp} />
                  </td>
                  <td>
                    <Time at={token.last_used_timestamp} />
                  </td>
                  <td class="buttons">
                    <button
                      type="button"
                      class="danger"
                      aria-label={`Revoke ${token.name}`}
                      onClick={() => setRevoking(token)}
                    >
                      Revoke
                    </button>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scrolls>
      )}
      <Pager pages={pages} next={list.data?.next} />
      {creating && (
        <CreateToken
          networks={networks}
          caller={caller}
          close={() => setCreating(false)}
          created={list.reload}
        />
      )}
      {revoking && (
        <Confirm
          title="Revoke token"
          text={`The token ${revoking.name} will be rejected from now on. This cannot be undone.`}
          actName="Revoke"
          close={() => setRevoking(null)}
          act={async () => {
            await body(
              client.DELETE("/api/v1/tokens/{token}", { params: { path: { token: revoking.identifier } } }),
            );
            list.reload();
          }}
        />
      )}
    </section>
  );
}
