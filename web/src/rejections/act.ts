// Replays and deletes rejections, page by page, and says in a sentence what came of it.
import { body, client, type Schemas } from "../api/client";

export type Which = { all: true } | { reason: Schemas["RejectionReason"] } | { identifier: number };

export function described(which: Which): string {
  if ("all" in which) return "All rejections";
  return "reason" in which ? `All rejections of the reason ${which.reason}` : "The rejection";
}

const FIGURES = ["replayed", "stored_items", "duplicate_items", "refused_items", "failed", "gone"] as const;
type Figures = Record<(typeof FIGURES)[number] | "not_replayable", number>;

function sentence(figures: Figures): string {
  const items = (count: number) => `${count.toLocaleString()} ${count === 1 ? "item" : "items"}`;
  const parts = [
    `${items(figures.stored_items)} stored`,
    figures.duplicate_items > 0 && `${items(figures.duplicate_items)} stored before`,
    figures.refused_items > 0 && `${items(figures.refused_items)} refused again`,
    figures.failed > 0 && `${figures.failed.toLocaleString()} failed`,
    figures.gone > 0 && `${figures.gone.toLocaleString()} were gone already`,
    figures.not_replayable > 0 && `${figures.not_replayable.toLocaleString()} cannot be replayed`,
  ];
  return `${figures.replayed.toLocaleString()} replayed: ${parts.filter(Boolean).join(", ")}.`;
}

export async function replayRejections(which: Which, progress: (sentence: string) => void): Promise<string> {
  const order = "identifier" in which ? { identifiers: [which.identifier] } : which;
  const sums: Figures = {
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
      client.POST("/api/v1/rejections/replay", { body: { ...order, ...(cursor && { cursor }) } }),
    );
    for (const figure of FIGURES) sums[figure] += page[figure];
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
    // One that is named is gone then.
    more = page.more && !("identifier" in which);
  }
  return `${deleted.toLocaleString()} deleted.`;
}
