// The service's API, with types from its OpenAPI document. All requests of the dashboard use this module, which
// adds the token and detects an expired session or a lost connection.
import createClient from "openapi-fetch";
import { setServiceTime } from "../parts/clock";
import { connectionLost, connectionRestored } from "../parts/connection";
import { sessionExpired, token } from "../session/session";
import { isAborted, Problem } from "./problem";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];

/** `fetch` with the token. A 401 ends the session; no response means that the connection is lost. */
export async function authorizedFetch(input: Request): Promise<Response> {
  const sentToken = token();
  if (sentToken !== null) input.headers.set("Authorization", `Bearer ${sentToken}`);
  // With AUTH=off the service requires this header, which a form of another site cannot set.
  input.headers.set("X-Requested-With", "tributary");
  let response: Response;
  try {
    response = await fetch(input);
  } catch (error) {
    if (isAborted(error)) throw error;
    connectionLost();
    throw Problem.unreachable();
  }
  connectionRestored();
  setServiceTime(response.headers.get("Date"));
  if (response.status === 401 && sentToken !== null && sentToken === token()) sessionExpired();
  return response;
}

const client = createClient<paths>({
  baseUrl: window.location.origin,
  fetch: authorizedFetch,
  // Several values of one parameter are separated by commas.
  querySerializer: { array: { style: "form", explode: false } },
});

interface Outcome<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** Returns the body of a response; throws a `Problem` if the request failed. */
async function body<T>(outcome: Promise<Outcome<T>>): Promise<T> {
  const { data, error, response } = await outcome;
  if (!response.ok) throw Problem.of(response.status, error, response.headers.get("X-Request-Id"));
  return data as T;
}

export { body, client };
