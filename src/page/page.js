"use strict";
// Keeps the page as it is now: the server says what has changed. Without this script the page is whole, and old.

const main = () => document.querySelector("main");
let places = new Map(), skew = 0;

// Which elements show which machine, anew with each page.
function begin() {
  skew = Date.now() - Number(main().dataset.now);
  places = Map.groupBy(document.querySelectorAll("[data-host]"), (place) => place.dataset.host);
}

function span(seconds) {
  const two = (n) => String(n).padStart(2, "0");
  const [m, h, d] = [60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
  if (d > 0) return `${d}d${two(h % 24)}h`;
  if (h > 0) return `${h}h${two(m % 60)}m`;
  return m > 0 ? `${m}m${two(seconds % 60)}s` : `${seconds}s`;
}

function tick() {
  for (const age of document.querySelectorAll("time[data-since]")) {
    const seconds = Math.floor((Date.now() - skew - Number(age.dataset.since)) / 1000);
    const words = span(Math.max(0, seconds));
    if (age.textContent !== words) age.textContent = words;
  }
}

// The whole page anew, at most once in two seconds: when machines come and go, or one begins to need a look.
let fetching = false, again = false, meanwhile = [];
async function refresh() {
  if (fetching) { again = true; return; }
  [fetching, meanwhile] = [true, []];
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    again ||= answer.status >= 429;
    if (answer.ok) {
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      main().replaceWith(document.adoptNode(fresh.querySelector("main")));
      document.title = fresh.title;
      begin();
      // What was told while the page was on its way may be newer than it.
      meanwhile.forEach(put);
    }
  } catch { again = true; }
  await new Promise((done) => setTimeout(done, 2000));
  fetching = false;
  if (again) { again = false; refresh(); }
}

// Shows one machine; true where the rest of the page depends on what has changed.
function put(machine) {
  let more = false;
  for (const place of places.get(machine.host) ?? []) {
    more ||= "whole" in place.dataset || place.dataset.state !== machine.state;
    const part = (selector, text) => {
      const found = place.querySelector(selector);
      if (found && text !== undefined) found.textContent = text;
      return found;
    };
    const words = part(".words", machine.words);
    for (const coloured of [place, words]) if (coloured) coloured.dataset.state = machine.state;
    part(".note", machine.note);
    if (place.matches(".card")) place.title = machine.note;
    const age = part(".age"), progress = part("progress");
    if (age && machine.since_ms) age.dataset.since = machine.since_ms;
    if (progress) progress.value = machine.progress;
  }
  return more;
}

function hosts(event) {
  const machines = JSON.parse(event.data);
  if (fetching) meanwhile.push(...machines);
  if (machines.map(put).includes(true)) refresh();
  tick();
}

// A browser opens six connections to a server: a page that nobody sees holds none. One that was refused, for there are
// too many watchers, comes again.
let stream;
const lost = (yes) => document.querySelectorAll("#live").forEach((sign) => { sign.hidden = !yes; });
function listen() {
  stream?.close();
  if (document.hidden) return;
  stream = new EventSource(`/v1/live?since=${main().dataset.version}`);
  stream.addEventListener("open", () => lost(false));
  stream.addEventListener("hosts", hosts);
  stream.addEventListener("whole", refresh);
  stream.addEventListener("error", () => {
    lost(true);
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 10000);
  });
}
document.addEventListener("visibilitychange", listen);
begin();
listen();
setInterval(tick, 1000);
