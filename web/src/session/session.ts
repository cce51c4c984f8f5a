// The session of the user. The token is kept in `sessionStorage`: it is deleted with the tab, and no other site can
// make the browser send it. With AUTH=off there is no sign-in.
import type { components } from "../api/schema";
import { createStore } from "../store";

export type Caller = components["schemas"]["Session"];
export type Role = components["schemas"]["Role"];

export type Session =
  | { status: "starting" }
  | { status: "signed-out"; expired: boolean }
  | { status: "signed-in"; caller: Caller; canSignOut: boolean };

const KEY = "tributary.token";
const ORDER: Role[] = ["viewer", "operator", "admin"];

export const session = createStore<Session>({ status: "starting" });

export const authIsOff =
  document.querySelector<HTMLMetaElement>('meta[name="tributary-auth"]')?.content === "off";

export function token(): string | null {
  return sessionStorage.getItem(KEY);
}

export function storeToken(text: string): void {
  sessionStorage.setItem(KEY, text);
}

export function deleteToken(): void {
  sessionStorage.removeItem(KEY);
}

/** Shows the sign-in form; the address does not change. */
export function sessionExpired(): void {
  deleteToken();
  session.set({ status: "signed-out", expired: true });
}

export function hasRole(caller: Caller, minimum: Role): boolean {
  return ORDER.indexOf(caller.role) >= ORDER.indexOf(minimum);
}

/** Whether the caller has the role in all networks, which actions on the whole service require. */
export function hasRoleInAll(caller: Caller, minimum: Role): boolean {
  return caller.network === null && hasRole(caller, minimum);
}
