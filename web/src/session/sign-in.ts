// Signs the user in and out.
import { body, client } from "../api/client";
import { Problem } from "../api/problem";
import { type Caller, deleteToken, session, storeToken, token } from "./session";

const readCaller = (): Promise<Caller> => body(client.GET("/api/v1/sessions/current"));

/** Continues with the token of this tab; retries until the service is reachable. */
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
      if (!(error instanceof Problem && error.isTemporary)) {
        if (session.get().status === "starting") session.set({ status: "signed-out", expired: false });
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, 1_000));
    }
  }
}

/** `network` is empty unless the user belongs to one network only. */
export async function signInByPassword(name: string, password: string, network: string): Promise<void> {
  const credentials = { name, password, network: network.trim() || null };
  const opened = await body(client.POST("/api/v1/sessions", { body: credentials }));
  await signInByToken(opened.token);
}

export async function signInByToken(text: string): Promise<void> {
  storeToken(text.trim());
  try {
    session.set({ status: "signed-in", caller: await readCaller(), canSignOut: true });
  } catch (error) {
    deleteToken();
    session.set({ status: "signed-out", expired: false });
    throw error;
  }
}

export async function signOut(): Promise<void> {
  try {
    // If the token is not a session, the service returns 403, and the token stays valid.
    await client.DELETE("/api/v1/sessions/current");
  } finally {
    deleteToken();
    session.set({ status: "signed-out", expired: false });
  }
}
