// Signing in and out.
import { body, client } from "../api/client";
import { Problem } from "../api/problem";
import { type Caller, forgetToken, keepToken, session, token } from "./session";

const readCaller = (): Promise<Caller> => body(client.GET("/api/v1/sessions/current"));

/** Goes on with the token of this tab; retries by itself until the service answers. */
export async function resume(authIsOff: boolean): Promise<void> {
  if (!authIsOff && token() === null) {
    session.set({ status: "signed-out", expired: false });
    return;
  }
  for (;;) {
    try {
      session.set({ status: "signed-in", caller: await readCaller(), canSignOut: !authIsOff });
      return;
    } catch (error) {
      if (!(error instanceof Problem && error.isPassing)) {
        if (session.get().status === "starting") session.set({ status: "signed-out", expired: false });
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, 1_000));
    }
  }
}

/** `network` is empty where the name alone says who it is. */
export async function signInByPassword(name: string, password: string, network: string): Promise<void> {
  const credentials = { name, password, network: network.trim() || null };
  const opened = await body(client.POST("/api/v1/sessions", { body: credentials }));
  await signInByToken(opened.token);
}

export async function signInByToken(text: string): Promise<void> {
  keepToken(text.trim());
  try {
    session.set({ status: "signed-in", caller: await readCaller(), canSignOut: true });
  } catch (error) {
    forgetToken();
    session.set({ status: "signed-out", expired: false });
    throw error;
  }
}

export async function signOut(): Promise<void> {
  try {
    // A token that is no session stays valid for whoever else has it: 403.
    await client.DELETE("/api/v1/sessions/current");
  } finally {
    forgetToken();
    session.set({ status: "signed-out", expired: false });
  }
}
