// Asks for a name.
import { useState } from "preact/hooks";
import { Dialog } from "../parts/dialog";
import { ProblemMessage } from "../parts/problem-message";
import { useAction } from "../parts/use-action";

interface Props {
  title: string;
  initial: string;
  save: (name: string) => Promise<void>;
  close: () => void;
}

export function NameDialog({ title, initial, save, close }: Props) {
  const [name, setName] = useState(initial);
  const action = useAction();
  return (
    <Dialog title={title} close={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void action.run(async () => {
            await save(name);
            close();
          });
        }}
      >
        <label>
          Name
          <input
            required
            maxLength={200}
            value={name}
            onInput={(event) => setName(event.currentTarget.value)}
          />
        </label>
        <ProblemMessage problem={action.problem} />
        <footer>
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class="primary" disabled={action.busy}>
            Save
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
