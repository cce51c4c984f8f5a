// Who uses the dashboard. The token is kept in `sessionStorage`: it ends with the tab, and no other site
// can make the browser send it. With AUTH=off there is no sign-in.
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

export function keepToken(text: string): void {
  sessionStorage.setItem(KEY, text);
}

export function forgetToken(): void {
  sessionStorage.removeItem(KEY);
}

/** The page stays where it is, and asks who it is before it goes on. */
export function sessionExpired(): void {
  forgetToken();
  session.set({ status: "signed-out", expired: true });
}

export function hasRole(caller: Caller, least: Role): boolean {
  return ORDER.indexOf(caller.role) >= ORDER.indexOf(least);
}

/** Whether the role holds in all networks, as what concerns the whole service takes. */
export function hasRoleInAll(caller: Caller, least: Role): boolean {
  return caller.network === null && hasRole(caller, least);
}
