"use strict";
// Keeps the page as it is now: the server says what has changed. Without this script the page is whole, and old.

const main = () => document.querySelector("main");
let skew = Date.now() - Number(main().dataset.now);

function span(seconds) {
  const two = (n) => String(n).padStart(2, "0");
  const [m, h, d] = [60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${m}m${two(seconds % 60)}s`;
  if (seconds < 86400) return `${h}h${two(m % 60)}m`;
  return `${d}d${two(h % 24)}h`;
}

function tick() {
  for (const age of document.querySelectorAll("time[data-since]")) {
    const seconds = Math.floor((Date.now() - skew - Number(age.dataset.since)) / 1000);
    age.textContent = span(Math.max(0, seconds));
  }
}

// The whole page anew, at most once in two seconds: when machines come and go, or one begins to need a look.
let fetching = false, again = false;
async function refresh() {
  if (fetching) { again = true; return; }
  fetching = true;
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (answer.ok) {
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      main().replaceWith(document.adoptNode(fresh.querySelector("main")));
      document.title = fresh.title;
      skew = Date.now() - Number(main().dataset.now);
    }
  } catch { /* The stream says so, too. */ }
  setTimeout(() => {
    fetching = false;
    if (again) { again = false; refresh(); }
  }, 2000);
}

function show(machine) {
  for (const place of document.querySelectorAll(`[data-host="${CSS.escape(machine.host)}"]`)) {
    if (place.dataset.whole || place.dataset.state !== machine.state) refresh();
    place.dataset.state = machine.state;
    const put = (selector, text) => {
      const part = place.querySelector(selector);
      if (part) part.textContent = text;
      return part;
    };
    const words = put(".words", machine.words);
    if (words) words.dataset.state = machine.state;
    put(".note", machine.note);
    if (place.matches(".card")) place.title = machine.note;
    const age = place.querySelector(".age");
    if (age && machine.since_ms) age.dataset.since = machine.since_ms;
    const progress = place.querySelector("progress");
    if (progress) progress.value = machine.progress;
  }
  tick();
}

const stream = new EventSource(`/v1/live?since=${encodeURIComponent(main().dataset.version)}`);
const connected = (yes) => document.querySelectorAll("#live").forEach((sign) => { sign.hidden = yes; });
stream.addEventListener("open", () => connected(true));
stream.addEventListener("error", () => connected(false));
stream.addEventListener("hosts", (event) => JSON.parse(event.data).forEach(show));
stream.addEventListener("whole", refresh);
setInterval(tick, 1000);
