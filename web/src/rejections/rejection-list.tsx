// The rejections with one reason, newest first: topic, detail and bytes of each.
import { body, client, type Schemas } from "../api/client";
import { Pager, usePages } from "../parts/pager";
import { ProblemMessage } from "../parts/problem-message";
import { Time } from "../parts/time";
import { useResource } from "../parts/use-resource";
import type { Which } from "./act";
import { RawBytes } from "./raw-bytes";

const PAGE_SIZE = 20;

interface Props {
  reason: Schemas["RejectionReason"];
  canAct: boolean;
  busy: boolean;
  replay: (which: Which) => void;
  remove: (which: Which) => void;
  /** Changes when the list must be reloaded. */
  round: number;
}

export function RejectionList({ reason, canAct, busy, replay, remove, round }: Props) {
  const pages = usePages(reason);
  const list = useResource(
    (signal) =>
      body(
        client.GET("/api/v1/rejections", {
          signal,
          params: { query: { reason, limit: PAGE_SIZE, ...(pages.cursor && { cursor: pages.cursor }) } },
        }),
      ),
    [reason, pages.cursor, round],
  );
  return (
    <>
      <ProblemMessage problem={list.problem} retry={list.reload} />
      <ul class="rejections">
        {list.data?.items.map((item) => (
          <li key={item.identifier}>
            <header>
              <code>{item.topic}</code>
              <Time at={item.receipt_timestamp} as="short" />
              {canAct && (
                <span class="buttons">
                  <button
                    type="button"
                    disabled={busy}
                    onClick={() => replay({ identifier: item.identifier })}
                  >
                    Replay this one
                  </button>
                  <button
                    type="button"
                    class="danger"
                    onClick={() => remove({ identifier: item.identifier })}
                  >
                    Delete this one
                  </button>
                </span>
              )}
            </header>
            <p>
              {item.detail}
              {item.item_index != null && ` (item ${item.item_index} of the message)`}
            </p>
            <RawBytes raw={item} />
          </li>
        ))}
      </ul>
      <Pager pages={pages} next={list.data?.next} />
    </>
  );
}
