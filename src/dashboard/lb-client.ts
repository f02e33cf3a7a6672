// Requests to the lb that served this page. The token is kept only in the tab's session and never in a URL.
import { EventStreamParser, type StreamEvent } from "./event-stream.ts";

const TOKEN_KEY = "lb-token";

export class RequestError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export function setToken(token: string): void {
  sessionStorage.setItem(TOKEN_KEY, token);
}

export function forgetToken(): void {
  sessionStorage.removeItem(TOKEN_KEY);
}

export function hasToken(): boolean {
  return sessionStorage.getItem(TOKEN_KEY) !== null;
}

/** The JSON of a successful answer. Throws RequestError; status 0 = no answer. */
export async function ask<T>(method: string, path: string, body?: unknown): Promise<T> {
  const response = await send(method, path, body);
  return (await response.json()) as T;
}

/** Calls `onEvent` for each event until the stream ends or `signal` aborts it. Throws RequestError. */
export async function follow(path: string, signal: AbortSignal, onEvent: (event: StreamEvent) => void): Promise<void> {
  const { body } = await send("GET", path, undefined, signal);
  if (body === null) return;
  const parser = new EventStreamParser();
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      for (const event of parser.push(value)) onEvent(event);
    }
  } catch (error) {
    if (!signal.aborted) throw new RequestError(0, String(error));
  }
}

async function send(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = { "X-Lb-Admin": "1" };
  const token = sessionStorage.getItem(TOKEN_KEY);
  if (token !== null) headers["Authorization"] = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method,
    headers,
    ...(body !== undefined && { body: JSON.stringify(body) }),
    ...(signal !== undefined && { signal }),
  }).catch((error: unknown) => {
    throw new RequestError(0, error instanceof Error ? error.message : String(error));
  });
  if (response.ok) return response;
  throw new RequestError(response.status, await reasonOf(response));
}

async function reasonOf(response: Response): Promise<string> {
  try {
    const { detail, cure } = (await response.json()) as { detail?: string; cure?: string };
    return [detail, cure].filter(Boolean).join("; ") || `status ${response.status}`;
  } catch {
    return `status ${response.status}`;
  }
}
