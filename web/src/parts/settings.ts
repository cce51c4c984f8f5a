// The settings of the service that pages depend on. Undefined until they are loaded.
import { body, client, type Schemas } from "../api/client";
import { useResource } from "./use-resource";

export function useSettings(): Schemas["Settings"] | undefined {
  return useResource((signal) => body(client.GET("/api/v1/status", { signal })), []).data?.settings;
}
