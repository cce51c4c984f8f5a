// Writes the next configuration: it begins with the newest one, is checked while it is typed, and reviewed
// before it is sent.
import { useState } from "preact/hooks";
import type { Schemas } from "../api/client";
import { check } from "./configuration-check";
import { SendDialog } from "./send-dialog";

interface Props {
  sensor: string;
  newest: Schemas["Configuration"] | null;
  /** Whether the service stores objects and arrays in it. */
  mayNest: boolean;
  sent: () => void;
}

export function ConfigurationEditor({ sensor, newest, mayNest, sent }: Props) {
  const before = (newest?.configuration ?? {}) as Record<string, unknown>;
  const initial = JSON.stringify(before, null, 2);
  // Null: nothing is being written, and the newest one is shown, whatever becomes of it.
  const [written, setWritten] = useState<string | null>(null);
  const text = written ?? initial;
  const [reviewing, setReviewing] = useState(false);
  const checked = check(text, mayNest);
  const problem = "problem" in checked ? checked.problem : null;
  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault();
        if (problem === null) setReviewing(true);
      }}
    >
      <label>
        New configuration
        <textarea
          rows={Math.min(16, Math.max(4, text.split("\n").length + 1))}
          spellcheck={false}
          value={text}
          aria-invalid={problem !== null}
          aria-describedby="configuration-problem"
          onInput={(event) => setWritten(event.currentTarget.value)}
        />
      </label>
      <p id="configuration-problem" class="failed-text" role="status">
        {problem}
      </p>
      <div class="buttons">
        <button type="submit" class="primary" disabled={problem !== null}>
          Review
        </button>
        {written !== null && written !== initial && (
          <button type="button" onClick={() => setWritten(null)}>
            Discard
          </button>
        )}
      </div>
      {reviewing && "configuration" in checked && (
        <SendDialog
          sensor={sensor}
          before={newest ? before : null}
          after={checked.configuration}
          text={text}
          close={() => setReviewing(false)}
          sent={() => {
            setReviewing(false);
            setWritten(null);
            sent();
          }}
        />
      )}
    </form>
  );
}
