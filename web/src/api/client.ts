// The service's API, typed by its own OpenAPI document. Every request of the dashboard goes through here,
// so that each shows the token, and that an expired session and a lost connection are noticed at once.
import createClient from "openapi-fetch";
import { learnTime } from "../parts/clock";
import { connectionLost, connectionWorks } from "../parts/connection";
import { sessionExpired, token } from "../session/session";
import { isAborted, Problem } from "./problem";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];

/** `fetch` with the token. A 401 ends the session; no answer at all means that the connection is lost. */
export async function authorizedFetch(input: Request): Promise<Response> {
  const shown = token();
  if (shown !== null) input.headers.set("Authorization", `Bearer ${shown}`);
  // A form of another site cannot set it; the service asks for it where it asks for no token.
  input.headers.set("X-Requested-With", "tributary");
  let response: Response;
  try {
    response = await fetch(input);
  } catch (error) {
    if (isAborted(error)) throw error;
    connectionLost();
    throw Problem.unreachable();
  }
  connectionWorks();
  learnTime(response.headers.get("Date"));
  if (response.status === 401 && shown !== null && shown === token()) sessionExpired();
  return response;
}

const client = createClient<paths>({
  baseUrl: window.location.origin,
  fetch: authorizedFetch,
  // Several values stand in one parameter, with commas between them.
  querySerializer: { array: { style: "form", explode: false } },
});

interface Outcome<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** The body of an answer; throws a `Problem` where there is none. */
async function body<T>(asked: Promise<Outcome<T>>): Promise<T> {
  const { data, error, response } = await asked;
  if (!response.ok) throw Problem.of(response.status, error, response.headers.get("X-Request-Id"));
  return data as T;
}

export { body, client };
