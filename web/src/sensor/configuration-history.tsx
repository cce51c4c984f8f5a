// The table of all revisions, with the times of creation, publication and acknowledgement.
import type { Schemas } from "../api/client";
import { Scrolls } from "../parts/scrolls";
import { StateBadge } from "../parts/state-badge";
import { Time } from "../parts/time";

export function ConfigurationHistory({ items }: { items: Schemas["Configuration"][] }) {
  return (
    <Scrolls labelledBy="history">
      <table class="history small">
        <caption id="history">Revisions</caption>
        <thead>
          <tr>
            <th scope="col">Revision</th>
            <th scope="col">State</th>
            <th scope="col">Created</th>
            <th scope="col">Published</th>
            <th scope="col" title="Time of the acknowledgement by the sensor's clock">
              Acknowledged
            </th>
            <th scope="col" title="When the service received the acknowledgement">
              Acknowledgement received
            </th>
            <th scope="col">Configuration</th>
          </tr>
        </thead>
        <tbody>
          {items.map((it) => (
            <tr key={it.revision} class={it.state === "failed" ? "failed-row" : undefined}>
              <th scope="row">{it.revision}</th>
              <td>
                <StateBadge state={it.state} />
                {it.problem && <p class="failed-text">{it.problem}</p>}
              </td>
              <td>
                <Time at={it.creation_timestamp} as="short" />
              </td>
              <td>
                <Time at={it.publication_timestamp} as="short" none="not yet" />
              </td>
              <td>
                <Time at={it.acknowledgement_timestamp} as="short" none="not yet" />
              </td>
              <td>
                <Time at={it.acknowledgement_receipt_timestamp} as="short" none="not yet" />
              </td>
              <td>
                <code>{JSON.stringify(it.configuration)}</code>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scrolls>
  );
}
