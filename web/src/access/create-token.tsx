// Creates a token, and shows it this once.
import { useState } from "preact/hooks";
import { body, client } from "../api/client";
import { CopyButton } from "../parts/copy-button";
import { Dialog } from "../parts/dialog";
import type { Network } from "../parts/networks";
import { ProblemMessage } from "../parts/problem-message";
import { TimeInput } from "../parts/time-input";
import { useAction } from "../parts/use-action";
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
  const action = useAction();
  const create = async () => {
    const made = await body(
      client.POST("/api/v1/tokens", {
        body: {
          name,
          role,
          ...(network !== "" && { network }),
          ...(expiry !== null && { expiry_timestamp: new Date(expiry * 1_000).toISOString() }),
        },
      }),
    );
    setToken(made.token);
    created();
  };
  if (token !== null) {
    return (
      <Dialog title={`Token ${name}`} close={close}>
        <p>This is the token. It is shown this once: copy it now.</p>
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
    <Dialog title="Create a token" close={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void action.run(create);
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
        <RoleFields
          role={role}
          network={network}
          networks={networks}
          caller={caller}
          change={(role, network) => setGrant([role, network])}
        />
        <TimeInput label="Expires (never, if empty)" value={expiry} change={setExpiry} />
        <ProblemMessage problem={action.problem} />
        <footer>
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class="primary" disabled={action.busy}>
            Create
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
