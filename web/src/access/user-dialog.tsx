// A dialog that creates or changes a user.
import { useState } from "preact/hooks";
import { body, client, type Schemas } from "../api/client";
import { FormDialog } from "../parts/form-dialog";
import { NameField } from "../parts/name-field";
import type { Network } from "../parts/networks";
import type { Caller, Role } from "../session/session";
import { RoleFields } from "./role-fields";

const MIN_PASSWORD_LENGTH = 12;

interface Props {
  /** Null to create a user. */
  user: Schemas["UserItem"] | null;
  networks: Network[];
  caller: Caller;
  close: () => void;
  saved: () => void;
}

export function UserDialog({ user, networks, caller, close, saved }: Props) {
  const [name, setName] = useState(user?.name ?? "");
  const [password, setPassword] = useState("");
  const [[role, network], setGrant] = useState<[Role, string]>([
    user?.role ?? "viewer",
    (user ? user.network : caller.network) ?? "",
  ]);
  const save = async () => {
    if (user === null) {
      await body(
        client.POST("/api/v1/users", { body: { name, password, role, ...(network !== "" && { network }) } }),
      );
    } else {
      await body(
        client.PATCH("/api/v1/users/{user}", {
          params: { path: { user: user.identifier } },
          body: {
            ...(password !== "" && { password }),
            ...(role !== user.role && { role }),
            ...(network !== (user.network ?? "") && { network: network === "" ? null : network }),
          },
        }),
      );
    }
    saved();
    close();
  };
  return (
    <FormDialog
      title={user === null ? "Create a user" : `Change ${user.name}`}
      submitName="Save"
      submit={save}
      close={close}
    >
      {user === null && <NameField value={name} change={setName} autocomplete="off" />}
      <label>
        {user === null ? "Password" : "New password"}
        <input
          type="password"
          required={user === null}
          minLength={MIN_PASSWORD_LENGTH}
          autocomplete="new-password"
          value={password}
          onInput={(event) => setPassword(event.currentTarget.value)}
        />
        <small>
          At least {MIN_PASSWORD_LENGTH} characters{user !== null && "; leave empty to keep the current one"}
        </small>
      </label>
      <RoleFields
        role={role}
        network={network}
        networks={networks}
        caller={caller}
        change={(role, network) => setGrant([role, network])}
      />
      {user !== null && <p class="quiet">A change ends all sessions of this user.</p>}
    </FormDialog>
  );
}
