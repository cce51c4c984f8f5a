// The list of networks, which group sensors. Networks are created, renamed and deleted here.
import { useState } from "preact/hooks";
import { body, client, type Schemas } from "../api/client";
import { Confirm } from "../parts/confirm";
import { Pager, usePages } from "../parts/pager";
import { ProblemMessage } from "../parts/problem-message";
import { Scrolls } from "../parts/scrolls";
import { Time } from "../parts/time";
import { useResource } from "../parts/use-resource";
import { NameDialog } from "./name-dialog";

type Network = Schemas["NetworkItem"];
type Open = { what: "create" } | { what: "rename" | "delete"; network: Network } | null;

export function Networks({ canCreate }: { canCreate: boolean }) {
  const pages = usePages("networks");
  const list = useResource(
    (signal) =>
      body(
        client.GET("/api/v1/networks", {
          signal,
          params: { query: pages.cursor ? { cursor: pages.cursor } : {} },
        }),
      ),
    [pages.cursor],
  );
  const [open, setOpen] = useState<Open>(null);
  const close = () => setOpen(null);
  return (
    <section aria-labelledby="networks">
      <div class="title">
        <h2 id="networks">Networks</h2>
        {canCreate && (
          <button type="button" onClick={() => setOpen({ what: "create" })}>
            Create a network
          </button>
        )}
      </div>
      <ProblemMessage problem={list.problem} retry={list.reload} />
      <Scrolls labelledBy="networks">
        <table class="small" aria-labelledby="networks">
          <thead>
            <tr>
              <th scope="col">Name</th>
              <th scope="col" class="number">
                Sensors
              </th>
              <th scope="col">Created</th>
              <th scope="col">Actions</th>
            </tr>
          </thead>
          <tbody>
            {list.data?.items.map((network) => (
              <tr key={network.identifier}>
                <th scope="row">{network.name}</th>
                <td class="number">{network.sensor_count.toLocaleString()}</td>
                <td>
                  <Time at={network.creation_timestamp} />
                </td>
                <td class="buttons">
                  <button
                    type="button"
                    aria-label={`Rename ${network.name}`}
                    onClick={() => setOpen({ what: "rename", network })}
                  >
                    Rename
                  </button>
                  {canCreate && network.sensor_count === 0 && (
                    <button
                      type="button"
                      class="danger"
                      aria-label={`Delete ${network.name}`}
                      onClick={() => setOpen({ what: "delete", network })}
                    >
                      Delete
                    </button>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scrolls>
      <Pager pages={pages} next={list.data?.next} />
      {open?.what === "create" && (
        <NameDialog
          title="Create a network"
          initial=""
          close={close}
          save={async (name) => {
            await body(client.POST("/api/v1/networks", { body: { name } }));
            list.reload();
          }}
        />
      )}
      {open?.what === "rename" && (
        <NameDialog
          title="Rename the network"
          initial={open.network.name}
          close={close}
          save={async (name) => {
            const path = { network: open.network.identifier };
            await body(client.PATCH("/api/v1/networks/{network}", { params: { path }, body: { name } }));
            list.reload();
          }}
        />
      )}
      {open?.what === "delete" && (
        <Confirm
          title="Delete network"
          text={`The network ${open.network.name} will be deleted, with all tokens and users that are limited to it.`}
          actName="Delete"
          close={close}
          act={async () => {
            const path = { network: open.network.identifier };
            await body(client.DELETE("/api/v1/networks/{network}", { params: { path } }));
            list.reload();
          }}
        />
      )}
    </section>
  );
}
