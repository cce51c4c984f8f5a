// A dialog for a name.
import { useState } from "preact/hooks";
import { FormDialog } from "../parts/form-dialog";
import { NameField } from "../parts/name-field";

interface Props {
  title: string;
  initial: string;
  save: (name: string) => Promise<void>;
  close: () => void;
}

export function NameDialog({ title, initial, save, close }: Props) {
  const [name, setName] = useState(initial);
  return (
    <FormDialog
      title={title}
      submitName="Save"
      submit={async () => {
        await save(name);
        close();
      }}
      close={close}
    >
      <NameField value={name} change={setName} />
    </FormDialog>
  );
}
