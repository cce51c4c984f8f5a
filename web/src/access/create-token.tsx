// Creates a token, and shows it once.
import { useState } from "preact/hooks";
import { body, client } from "../api/client";
import { CopyButton } from "../parts/copy-button";
import { Dialog } from "../parts/dialog";
import { FormDialog } from "../parts/form-dialog";
import { NameField } from "../parts/name-field";
import type { Network } from "../parts/networks";
import { TimeInput } from "../parts/time-input";
import type { Caller, Role } from "../session/session";
import { RoleFields } from "./role-fields";

interface Props {
  networks: Network[];
  caller: Caller;
  close: () => void;
  created: () => void;
}

export function CreateToken({ networks, caller, close, created }: Props) {
  const [name, setName] = useState("");
  const [[role, network], setGrant] = useState<[Role, string]>(["viewer", caller.network ?? ""]);
  const [expiry, setExpiry] = useState<number | null>(null);
  const [token, setToken] = useState<string | null>(null);
  const create = async () => {
    const response = await body(
      client.POST("/api/v1/tokens", {
        body: {
          name,
          role,
          ...(network !== "" && { network }),
          ...(expiry !== null && { expiry_timestamp: new Date(expiry * 1_000).toISOString() }),
        },
      }),
    );
    setToken(response.token);
    created();
  };
  if (token !== null) {
    return (
      <Dialog title={`Token ${name}`} close={close}>
        <p>Copy the token now: it is shown only once.</p>
        <p class="copied">
          <code>{token}</code>
          <CopyButton text={token} />
        </p>
        <footer>
          <button type="button" class="primary" onClick={close}>
            Done
          </button>
        </footer>
      </Dialog>
    );
  }
  return (
    <FormDialog title="Create a token" submitName="Create" submit={create} close={close}>
      <NameField value={name} change={setName} />
      <RoleFields
        role={role}
        network={network}
        networks={networks}
        caller={caller}
        change={(role, network) => setGrant([role, network])}
      />
      <TimeInput label="Expires (leave empty for never)" value={expiry} change={setExpiry} />
    </FormDialog>
  );
}
