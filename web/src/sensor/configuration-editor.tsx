// The editor for the next configuration. It starts with the newest one, checks the input, and shows the changes before
// they are sent.
import { useState } from "preact/hooks";
import type { Schemas } from "../api/client";
import { check } from "./configuration-check";
import { SendDialog } from "./send-dialog";

interface Props {
  sensor: string;
  newest: Schemas["Configuration"] | null;
  /** Whether the service accepts objects and arrays as values. */
  mayNest: boolean;
  sent: () => void;
}

export function ConfigurationEditor({ sensor, newest, mayNest, sent }: Props) {
  const before = (newest?.configuration ?? {}) as Record<string, unknown>;
  const initial = JSON.stringify(before, null, 2);
  // Null until the user types: the editor shows the newest configuration.
  const [draft, setDraft] = useState<string | null>(null);
  const text = draft ?? initial;
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
          onInput={(event) => setDraft(event.currentTarget.value)}
        />
      </label>
      <p id="configuration-problem" class="failed-text" role="status">
        {problem}
      </p>
      <div class="buttons">
        <button type="submit" class="primary" disabled={problem !== null}>
          Review changes
        </button>
        {draft !== null && draft !== initial && (
          <button type="button" onClick={() => setDraft(null)}>
            Discard changes
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
            setDraft(null);
            sent();
          }}
        />
      )}
    </form>
  );
}
