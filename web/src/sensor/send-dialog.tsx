// Shows what a new configuration changes, and sends it.
import { useState } from "preact/hooks";
import { body, client } from "../api/client";
import { Dialog } from "../parts/dialog";
import { ProblemMessage } from "../parts/problem-message";
import { useAction } from "../parts/use-action";
import { differences } from "./configuration-check";

interface Props {
  sensor: string;
  /** Null if the sensor has no configuration yet. */
  before: Record<string, unknown> | null;
  after: Record<string, unknown>;
  /** Sent unchanged, so that no number is rounded. */
  text: string;
  close: () => void;
  sent: () => void;
}

export function SendDialog({ sensor, before, after, text, close, sent }: Props) {
  // A retry after a lost connection must not create another revision.
  const [key] = useState(() => newKey());
  const action = useAction();
  const changes = differences(before ?? {}, after);
  const send = () =>
    action.run(async () => {
      await body(
        client.POST("/api/v1/sensors/{identifier}/configurations", {
          params: { path: { identifier: sensor }, header: { "Idempotency-Key": key } },
          body: after,
          bodySerializer: () => text,
        }),
      );
      sent();
    });
  return (
    <Dialog title="Send configuration" close={close}>
      {changes.length === 0 ? (
        <p>Nothing changes compared with the newest revision. Sending still creates a new revision.</p>
      ) : (
        <table class="diff">
          <caption>{before === null ? "First configuration" : "Changes"}</caption>
          <thead>
            <tr>
              <th scope="col">Setting</th>
              <th scope="col">Before</th>
              <th scope="col">After</th>
            </tr>
          </thead>
          <tbody>
            {changes.map(({ name, from, to }) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td>{from === undefined ? <span class="quiet">none</span> : <del>{from}</del>}</td>
                <td>{to === undefined ? <span class="quiet">removed</span> : <ins>{to}</ins>}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      <ProblemMessage problem={action.problem} />
      <footer>
        <button type="button" onClick={close}>
          Cancel
        </button>
        <button type="button" class="primary" disabled={action.busy} onClick={() => void send()}>
          Send
        </button>
      </footer>
    </Dialog>
  );
}

/** `crypto.randomUUID` is available only with HTTPS or on localhost. */
function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}
