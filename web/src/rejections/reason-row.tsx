// The rejections with one reason: their number, and the list of them if the row is expanded.
import type { Schemas } from "../api/client";
import { Time } from "../parts/time";
import type { Which } from "./act";
import { RejectionList } from "./rejection-list";

interface Props {
  item: Schemas["RejectionCount"];
  isOpen: boolean;
  toggle: () => void;
  canAct: boolean;
  busy: boolean;
  replay: (which: Which) => void;
  remove: (which: Which) => void;
  round: number;
}

export function ReasonRow({ item, isOpen, toggle, canAct, busy, replay, remove, round }: Props) {
  const { reason } = item;
  return (
    <>
      <tr>
        <th scope="row">
          <button type="button" class="plain" aria-expanded={isOpen} onClick={toggle}>
            <span aria-hidden="true">{isOpen ? "▾" : "▸"}</span> {reason}
          </button>
        </th>
        <td class="number">{item.count.toLocaleString()}</td>
        <td class="number">{item.item_count.toLocaleString()}</td>
        <td>
          <Time at={item.first_receipt_timestamp} />
        </td>
        <td>
          <Time at={item.last_receipt_timestamp} />
        </td>
        {canAct && (
          <td class="buttons">
            <button type="button" disabled={busy} onClick={() => replay({ reason })}>
              Replay
            </button>
            <button type="button" class="danger" onClick={() => remove({ reason })}>
              Delete
            </button>
          </td>
        )}
      </tr>
      {isOpen && (
        <tr class="opened">
          <td colSpan={canAct ? 6 : 5}>
            <RejectionList
              reason={reason}
              canAct={canAct}
              busy={busy}
              replay={replay}
              remove={remove}
              round={round}
            />
          </td>
        </tr>
      )}
    </>
  );
}
