// Requests to this origin, and what comes of them.

import { authorization } from "./session.js";
import { heard } from "./time.js";

/** The server has refused (RFC 9457). */
export class Refused extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.title ?? `The server answered ${status}`);
    Object.assign(this, { status, problem, retryAfter, kind: String(problem.type ?? "").replace("/problems/", "") });
  }
}

/** No answer came: nobody knows whether the request arrived. */
export class NoAnswer extends Error {}

const READ_TIME = 10_000;
const CHANGE_TIME = 60_000;

/** `{ status, data, headers }`; throws `Refused` and `NoAnswer`. */
export async function call(method, path, { body, headers = {}, also = [] } = {}) {
  const response = await send(method, path, body, headers);
  heard(response.headers.get("date"));
  const data = await content(response);
  if (response.ok || also.includes(response.status)) return { status: response.status, data, headers: response.headers };
  const problem = typeof data === "object" && data !== null ? data : {};
  throw new Refused(response.status, problem, Number(response.headers.get("retry-after")) || null);
}

async function send(method, path, body, headers) {
  const json = body === undefined ? {} : { "Content-Type": "application/json" };
  try {
    return await fetch(path, {
      method,
      headers: { ...json, ...authorization(), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      mode: "same-origin",
      cache: "no-store",
      redirect: "error",
      signal: AbortSignal.timeout(method === "GET" ? READ_TIME : CHANGE_TIME),
    });
  } catch (error) {
    throw new NoAnswer(String(error));
  }
}

async function content(response) {
  try {
    const isJson = /[/+]json/.test(response.headers.get("content-type") ?? "");
    return await (isJson ? response.json() : response.text());
  } catch (error) {
    throw new NoAnswer(String(error));
  }
}

export const read = async (path, options) => (await call("GET", path, options)).data;

/** One change is one key, however often it has to be sent (`Idempotency-Key`). */
export function freshKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
