// The networks that the caller may see; the views show their names.
import { body, client, type Schemas } from "../api/client";
import { useResource } from "./use-resource";

export type Network = Schemas["NetworkItem"];

/** Further networks cannot be selected by name; their sensors are listed nevertheless. */
const MAX_NETWORKS = 1_000;

export function useNetworks(): Network[] {
  const { data } = useResource(
    async (signal) =>
      (await body(client.GET("/api/v1/networks", { params: { query: { limit: MAX_NETWORKS } }, signal })))
        .items,
    [],
  );
  return data ?? [];
}
