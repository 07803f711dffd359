// Requests to the server.

// A random name that joins the jobs of this page.
export const group = Array.from(crypto.getRandomValues(new Uint8Array(18)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export const resultUrl = (id) => `/v1/jobs/${id}/result`;
export const previewUrl = (id, side) => `/v1/jobs/${id}/preview/${side}`;
export const archiveUrl = `/v1/groups/${group}/results.zip`;

// Send a file; gives status, answer and the seconds after which to try again. Status 0: no connection.
export function send(file, options, onProgress, signal) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/v1/upscale?${new URLSearchParams({ ...options, group })}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.setRequestHeader("Prefer", "respond-async");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded / (event.total || 1)));
    request.addEventListener("loadend", () => resolve({
      status: request.status,
      answer: request.response,
      retryAfter: Number(request.getResponseHeader("Retry-After")) || 1,
    }));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

export const remove = (id) => fetch(`/v1/jobs/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});

// Call for each status of a job of this page, and when the connection is there again. Returns what ends it.
export function listen(onStatus, onOpen) {
  let events, timer;
  const connect = () => {
    events = new EventSource(`/v1/groups/${group}/events`);
    events.addEventListener("status", (event) => onStatus(JSON.parse(event.data)));
    events.addEventListener("open", onOpen);
    events.addEventListener("error", () => {
      if (events.readyState === EventSource.CLOSED) timer = setTimeout(connect, 2000);
    });
  };
  connect();
  return () => { clearTimeout(timer); events.close(); };
}

// The status of every job of this page that the server knows.
export async function statuses() {
  const response = await fetch(`/v1/groups/${group}`);
  if (!response.ok) throw new Error(response.statusText);
  return response.json();
}

// What the server is and allows; null if it wants a token first.
export async function about() {
  const response = await fetch("/v1/about");
  return response.status === 401 ? null : response.json();
}

export async function logIn(token) {
  const headers = { Authorization: `Bearer ${token}` };
  return (await fetch("/v1/session", { method: "POST", headers })).ok;
}
