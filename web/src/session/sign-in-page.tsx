// Asks who it is: by name and password, or by a token.
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
          Your session has ended. Sign in to go on where you were.
        </p>
      )}
      <form
        aria-label="People"
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
          <small id="network-hint">Its identifier, if your network's admin gave you one</small>
        </label>
        <ProblemMessage problem={byPassword.problem} />
        <button type="submit" class="primary" disabled={byPassword.busy}>
          Sign in
        </button>
      </form>
      <form
        aria-label="Programs"
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
          Sign in
        </button>
      </form>
      <p class="quiet">
        No account yet? Whoever runs the service creates one:
        <code class="command">tributary user create --name ada --role admin</code>
      </p>
    </main>
  );
}
