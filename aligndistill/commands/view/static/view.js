"use strict";
// Live parts, keys, and blind votes. Every page but the votes works without it.

function live(part) {
  const source = new EventSource(part.dataset.live);
  source.addEventListener("live", (event) => {
    const open = [...part.querySelectorAll("details")].map((one) => one.open);
    part.innerHTML = JSON.parse(event.data); // made and escaped by the server, as the page itself
    [...part.querySelectorAll("details")].forEach((one, place) => { if (place in open) one.open = open[place]; });
  });
}

function typing(event) {
  const at = event.target;
  return event.ctrlKey || event.metaKey || event.altKey || (at.matches && at.matches("input:not([type=checkbox]), select, textarea"));
}

function keys() {
  document.addEventListener("keydown", (event) => {
    if (typing(event) || document.getElementById("vote")) return;
    const wanted = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (wanted) { event.preventDefault(); wanted.click(); }
  });
  const toggle = document.querySelector("[data-toggle=diff]");
  if (toggle) toggle.addEventListener("click", () => {
    const plain = document.querySelector("main").classList.toggle("plain");
    toggle.setAttribute("aria-pressed", String(!plain));
  });
  for (const slider of document.querySelectorAll("[data-submit]")) slider.addEventListener("change", () => slider.form.requestSubmit());
}

function vote(part) {
  const at = (id) => document.getElementById(id);
  const status = at("status"), note = at("note"), noteLabel = at("note-label");
  let pairs = [], place = 0, shownAt = 0, unsent = [], sending = false;
  const given = [];

  const id = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

  function say() {
    const waiting = unsent.length ? ` · ${unsent.length} not stored yet` : "";
    if (place < pairs.length) status.textContent = `pair ${place + 1} of ${pairs.length}${waiting}`;
  }

  function show() {
    const pair = pairs[place];
    noteLabel.hidden = true;
    note.value = "";
    if (!pair) return end();
    at("prompt").textContent = visible(pair.text);
    at("left").textContent = visible(pair.texts[0]) || "(empty)";
    at("right").textContent = visible(pair.texts[1]) || "(empty)";
    shownAt = performance.now();
    say();
  }

  function end() {
    for (const name of ["prompt", "left", "right"]) at(name).textContent = "";
    status.replaceChildren(pairs.length ? "This batch is done. " : "There are no pairs left. ");
    const results = document.createElement("a");
    results.href = part.dataset.results;
    results.textContent = "Show the results";
    const more = document.createElement("a");
    more.href = location.href;
    more.textContent = "Vote on more";
    if (unsent.length) status.append(`${unsent.length} votes are not stored yet. `);
    else status.append(results, ...(pairs.length ? [" or ", more] : []));
  }

  async function send() {
    if (sending) return;
    sending = true;
    let wait = 250;
    while (unsent.length) {
      try {
        const answer = await fetch(part.dataset.send, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(unsent[0]) });
        if (!answer.ok && answer.status !== 507) {
          status.textContent = `A vote was refused: ${(await answer.json().catch(() => ({}))).error || answer.status}`;
          unsent.shift();
          continue;
        }
        if (!answer.ok) throw new Error("not stored");
        unsent.shift();
        wait = 250;
      } catch {
        await new Promise((done) => setTimeout(done, wait)); // the server is away; the same id is sent again
        wait = Math.min(2 * wait, 5000);
      }
      if (place >= pairs.length) end(); else say();
    }
    sending = false;
  }

  function ballot(pair, choice) {
    const { prompt, left, right, queue } = pair;
    unsent.push({ id: id(), prompt, left, right, queue, vote: choice, milliseconds: Math.round(performance.now() - shownAt), note: note.value });
    send();
  }

  function choose(choice) {
    if (choice === "note") {
      if (place < pairs.length) { noteLabel.hidden = false; note.focus(); }
    } else if (choice === "undo") {
      const last = given.pop();
      if (last === undefined) return;
      ballot(pairs[last], "undo");
      place = last;
      show();
    } else if (place < pairs.length) {
      given.push(place);
      ballot(pairs[place], choice);
      place += 1;
      show();
    }
  }

  for (const button of part.querySelectorAll("[data-vote]")) button.addEventListener("click", () => choose(button.dataset.vote));
  document.addEventListener("keydown", (event) => {
    if (event.target === note) {
      if (event.key === "Enter" || event.key === "Escape") { noteLabel.hidden = true; note.blur(); }
      return;
    }
    if (typing(event) || event.repeat) return;
    const button = part.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (button) { event.preventDefault(); choose(button.dataset.vote); }
  });
  window.addEventListener("beforeunload", (event) => { if (unsent.length) event.preventDefault(); });

  fetch(part.dataset.pairs).then((answer) => answer.json()).then((found) => { pairs = found.pairs; show(); })
    .catch(() => { status.textContent = "The pairs could not be loaded. Reload the page."; });
}

// As the server shows texts: control, format, direction and lone surrogate characters are written out.
function visible(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu, (one) =>
    one === "\n" || one === "\t" ? one : `⟨U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

const livePart = document.querySelector("[data-live]");
if (livePart) live(livePart);
keys();
const votePart = document.getElementById("vote");
if (votePart) vote(votePart);
