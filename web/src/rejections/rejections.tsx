// The rejections by reason. They are inspected, replayed and deleted here.
import { useState } from "preact/hooks";
import { body, client, type Schemas } from "../api/client";
import { Confirm } from "../parts/confirm";
import { ProblemMessage } from "../parts/problem-message";
import { useAction } from "../parts/use-action";
import { useResource } from "../parts/use-resource";
import { type Caller, hasRole } from "../session/session";
import { deleteRejections, described, replayRejections, type Which } from "./act";
import { ReasonRow } from "./reason-row";

const REFRESH_MS = 10_000;

export function Rejections({ caller }: { caller: Caller }) {
  const summary = useResource(
    (signal) => body(client.GET("/api/v1/rejections/summary", { signal })),
    [],
    REFRESH_MS,
  );
  const [open, setOpen] = useState<Schemas["RejectionReason"] | null>(null);
  const [deleting, setDeleting] = useState<Which | null>(null);
  const [outcome, setOutcome] = useState("");
  const [round, setRound] = useState(0);
  const action = useAction();
  const canAct = hasRole(caller, "operator");
  const changed = () => {
    summary.reload();
    setRound((round) => round + 1);
  };
  const replay = (which: Which) =>
    action.run(async () => {
      try {
        setOutcome(await replayRejections(which, setOutcome));
      } finally {
        changed();
      }
    });
  const items = summary.data?.items ?? [];
  return (
    <>
      <div class="title">
        <h1>Rejections</h1>
        {canAct && items.length > 0 && (
          <div class="buttons">
            <button type="button" disabled={action.busy} onClick={() => void replay({ all: true })}>
              Replay all
            </button>
            <button type="button" class="danger" onClick={() => setDeleting({ all: true })}>
              Delete all
            </button>
          </div>
        )}
      </div>
      <p class="quiet">
        Messages that could not be stored. After the cause is fixed, replay them: they are processed again
        like new messages.
      </p>
      <ProblemMessage problem={summary.problem} retry={summary.reload} />
      <ProblemMessage problem={action.problem} />
      <p class="announcement" role="status">
        {outcome}
      </p>
      {summary.data && items.length === 0 ? (
        <section class="empty">
          <p>Nothing was rejected. Messages that cannot be stored are listed here, with the reason.</p>
        </section>
      ) : (
        <table class="reasons" aria-label="Rejections by reason" aria-busy={!summary.data}>
          <thead>
            <tr>
              <th scope="col">Reason</th>
              <th scope="col" class="number">
                Rejections
              </th>
              <th scope="col" class="number">
                Items
              </th>
              <th scope="col">First received</th>
              <th scope="col">Last received</th>
              {canAct && <th scope="col">Actions</th>}
            </tr>
          </thead>
          <tbody>
            {items.map((item) => (
              <ReasonRow
                key={item.reason}
                item={item}
                isOpen={open === item.reason}
                toggle={() => setOpen(open === item.reason ? null : item.reason)}
                canAct={canAct}
                busy={action.busy}
                replay={replay}
                remove={setDeleting}
                round={round}
              />
            ))}
          </tbody>
        </table>
      )}
      {deleting && (
        <Confirm
          title="Delete rejections"
          text={`${described(deleting)} will be deleted. This cannot be undone.`}
          actName="Delete"
          close={() => setDeleting(null)}
          act={async () => {
            try {
              setOutcome(await deleteRejections(deleting));
            } finally {
              changed();
            }
          }}
        />
      )}
    </>
  );
}
