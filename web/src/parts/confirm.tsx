// Asks before something is done that cannot be undone; where `typed` is given, that has to be typed.
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
  const [given, setGiven] = useState("");
  const ready = typed === undefined || given === typed;
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
          <input value={given} autocomplete="off" onInput={(event) => setGiven(event.currentTarget.value)} />
        </label>
      )}
    </FormDialog>
  );
}
