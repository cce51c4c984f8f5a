// Asks for confirmation of an action that cannot be undone. If `typed` is set, the user must type this text.
import { useState } from "preact/hooks";
import { FormDialog } from "./form-dialog";

interface Props {
  title: string;
  text: string;
  act: () => Promise<void>;
  actName: string;
  typed?: string;
  close: () => void;
}

export function Confirm({ title, text, act, actName, typed, close }: Props) {
  const [input, setInput] = useState("");
  const ready = typed === undefined || input === typed;
  return (
    <FormDialog
      title={title}
      submitName={actName}
      submitClass="danger"
      ready={ready}
      submit={async () => {
        await act();
        close();
      }}
      close={close}
    >
      <p>{text}</p>
      {typed !== undefined && (
        <label>
          Type <strong>{typed}</strong> to confirm
          <input value={input} autocomplete="off" onInput={(event) => setInput(event.currentTarget.value)} />
        </label>
      )}
    </FormDialog>
  );
}
