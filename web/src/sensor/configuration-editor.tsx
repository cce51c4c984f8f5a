// Writes the next configuration: it begins with the newest one, is checked while it is typed, and reviewed
// before it is sent.
import { useState } from "preact/hooks";
import type { Schemas } from "../api/client";
import { check } from "./configuration-check";
import { SendDialog } from "./send-dialog";

interface Props {
  sensor: string;
  newest: Schemas["Configuration"] | null;
  editing: (is: boolean) => void;
  sent: () => void;
}

export function ConfigurationEditor({ sensor, newest, editing, sent }: Props) {
  const before = (newest?.configuration ?? {}) as Record<string, unknown>;
  const initial = JSON.stringify(before, null, 2);
  const [text, setText] = useState(initial);
  const [reviewing, setReviewing] = useState(false);
  const checked = check(text);
  const problem = "problem" in checked ? checked.problem : null;
  const isChanged = text !== initial;
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
          onInput={(event) => {
            const next = event.currentTarget.value;
            setText(next);
            editing(next !== initial);
          }}
        />
      </label>
      <p id="configuration-problem" class="failed-text" role="status">
        {problem}
      </p>
      <div class="buttons">
        <button type="submit" class="primary" disabled={problem !== null}>
          Review
        </button>
        {isChanged && (
          <button
            type="button"
            onClick={() => {
              setText(initial);
              editing(false);
            }}
          >
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
            editing(false);
            sent();
          }}
        />
      )}
    </form>
  );
}
