// What the service is set to, as far as pages depend on it. Undefined: it is not known yet.
import { body, client, type Schemas } from "../api/client";
import { useResource } from "./use-resource";

export function useSettings(): Schemas["Settings"] | undefined {
  return useResource((signal) => body(client.GET("/api/v1/status", { signal })), []).data?.settings;
}
