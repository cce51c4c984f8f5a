// The sign-in page: by name and password, or by a token.
import { useState } from "preact/hooks";
import { ProblemMessage } from "../parts/problem-message";
import { useAction } from "../parts/use-action";
import { signInByPassword, signInByToken } from "./sign-in";

export function SignInPage({ expired }: { expired: boolean }) {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [network, setNetwork] = useState("");
  const [token, setToken] = useState("");
  const byPassword = useAction();
  const byToken = useAction();
  return (
    <main class="sign-in">
      <h1>Tributary</h1>
      {expired && (
        <p role="status" class="notice">
          Your session has ended. Sign in to continue.
        </p>
      )}
      <form
        aria-label="Sign in with a password"
        onSubmit={(event) => {
          event.preventDefault();
          void byPassword.run(() => signInByPassword(name, password, network));
        }}
      >
        <label>
          Name
          <input
            required
            autocomplete="username"
            value={name}
            onInput={(event) => setName(event.currentTarget.value)}
          />
        </label>
        <label>
          Password
          <input
            required
            type="password"
            autocomplete="current-password"
            value={password}
            onInput={(event) => setPassword(event.currentTarget.value)}
          />
        </label>
        <label>
          Network
          <input
            autocomplete="off"
            spellcheck={false}
            aria-describedby="network-hint"
            value={network}
            onInput={(event) => setNetwork(event.currentTarget.value)}
          />
          <small id="network-hint">Identifier of your network; leave empty if you did not get one</small>
        </label>
        <ProblemMessage problem={byPassword.problem} />
        <button type="submit" class="primary" disabled={byPassword.busy}>
          Sign in
        </button>
      </form>
      <form
        aria-label="Sign in with a token"
        onSubmit={(event) => {
          event.preventDefault();
          void byToken.run(() => signInByToken(token));
        }}
      >
        <label>
          Token
          <input
            required
            autocomplete="off"
            spellcheck={false}
            placeholder="trb_…"
            value={token}
            onInput={(event) => setToken(event.currentTarget.value)}
          />
        </label>
        <ProblemMessage problem={byToken.problem} />
        <button type="submit" disabled={byToken.busy}>
          Sign in with a token
        </button>
      </form>
      <p class="quiet">
        No account yet? The administrator of the service creates one with this command:
        <code class="command">tributary user create --name ada --role admin</code>
      </p>
    </main>
  );
}
