// Downloads a file that requires the token, which a normal link would not send.
import { authorizedFetch } from "../api/client";
import { Problem } from "../api/problem";

export async function download(path: string, fallbackName: string): Promise<void> {
  const response = await authorizedFetch(new Request(path));
  if (!response.ok) {
    const problem = await response.json().catch(() => null);
    throw Problem.of(response.status, problem, response.headers.get("X-Request-Id"));
  }
  let content: Blob;
  try {
    content = await response.blob();
  } catch {
    throw new Problem(0, "The export was interrupted. Try again, or choose a shorter range.", null);
  }
  const name = response.headers.get("Content-Disposition")?.match(/filename="([^"]+)"/)?.[1];
  const url = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = url;
  link.download = name ?? fallbackName;
  link.click();
  URL.revokeObjectURL(url);
}
