// Replays and deletes rejections, page by page, and describes the result in a sentence.
import { body, client, type Schemas } from "../api/client";

export type Which = { all: true } | { reason: Schemas["RejectionReason"] } | { identifier: number };

export function described(which: Which): string {
  if ("all" in which) return "All rejections";
  return "reason" in which ? `All rejections with the reason ${which.reason}` : "The rejection";
}

const COUNTS = ["replayed", "stored_items", "duplicate_items", "refused_items", "failed", "gone"] as const;
type Counts = Record<(typeof COUNTS)[number] | "not_replayable", number>;

function sentence(counts: Counts): string {
  const items = (count: number) => `${count.toLocaleString()} ${count === 1 ? "item" : "items"}`;
  const parts = [
    `${items(counts.stored_items)} stored`,
    counts.duplicate_items > 0 && `${items(counts.duplicate_items)} already stored`,
    counts.refused_items > 0 && `${items(counts.refused_items)} rejected again`,
    counts.failed > 0 && `${counts.failed.toLocaleString()} failed`,
    counts.gone > 0 && `${counts.gone.toLocaleString()} were already deleted`,
    counts.not_replayable > 0 && `${counts.not_replayable.toLocaleString()} cannot be replayed`,
  ];
  return `${counts.replayed.toLocaleString()} replayed: ${parts.filter(Boolean).join(", ")}.`;
}

export async function replayRejections(which: Which, progress: (sentence: string) => void): Promise<string> {
  const request = "identifier" in which ? { identifiers: [which.identifier] } : which;
  const sums: Counts = {
    replayed: 0,
    stored_items: 0,
    duplicate_items: 0,
    refused_items: 0,
    failed: 0,
    gone: 0,
    not_replayable: 0,
  };
  let cursor: string | null | undefined = null;
  do {
    const page: Schemas["Replay"] = await body(
      client.POST("/api/v1/rejections/replay", { body: { ...request, ...(cursor && { cursor }) } }),
    );
    for (const name of COUNTS) sums[name] += page[name];
    sums.not_replayable += page.not_replayable.length;
    progress(sentence(sums));
    cursor = page.next;
  } while (cursor);
  return sentence(sums);
}

export async function deleteRejections(which: Which): Promise<string> {
  let [deleted, more] = [0, true];
  while (more) {
    const page: Schemas["RejectionsDeleted"] = await body(
      client.DELETE("/api/v1/rejections", { params: { query: which } }),
    );
    deleted += page.deleted;
    // A single rejection is deleted by the first request.
    more = page.more && !("identifier" in which);
  }
  return `${deleted.toLocaleString()} deleted.`;
}
