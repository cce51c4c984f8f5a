// Asks before something is done that cannot be undone; where `typed` is given, that has to be typed.
import { useState } from "preact/hooks";
import { Dialog } from "./dialog";
import { ProblemMessage } from "./problem-message";
import { useAction } from "./use-action";

interface Props {
  title: string;
  text: string;
  act: () => Promise<void>;
  actName: string;
  typed?: string;
  close: () => void;
}

export function Confirm({ title, text, act, actName, typed, close }: Props) {
  const [given, setGiven] = useState("");
  const action = useAction();
  const ready = typed === undefined || given === typed;
  return (
    <Dialog title={title} close={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (ready)
            void action.run(async () => {
              await act();
              close();
            });
        }}
      >
        <p>{text}</p>
        {typed !== undefined && (
          <label>
            Type <strong>{typed}</strong> to confirm
            <input
              value={given}
              autocomplete="off"
              onInput={(event) => setGiven(event.currentTarget.value)}
            />
          </label>
        )}
        <ProblemMessage problem={action.problem} />
        <footer>
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class="danger" disabled={!ready || action.busy}>
            {actName}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
