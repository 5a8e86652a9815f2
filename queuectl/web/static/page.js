// Keeps an open page up to date. Every page works without it.
"use strict";

(() => {
  const root = document.documentElement;
  const THEME = "queuectl-theme";
  try {
    if (localStorage.getItem(THEME)) root.dataset.theme = localStorage.getItem(THEME);
  } catch { /* a private window keeps nothing */ }

  function theme() {
    const button = document.getElementById("theme");
    button.hidden = false;
    button.addEventListener("click", () => {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      try { localStorage.setItem(THEME, root.dataset.theme); } catch { /* as above */ }
    });
  }

  // ── times, by the clock of the server ───────────────────────────────────────────────────

  let ahead = 0;
  const setClock = (now) => { ahead = Date.parse(now) - Date.now(); };

  function duration(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
    if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
    return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
  }

  function words(time) {
    const seconds = (Date.now() + ahead - Date.parse(time.dateTime)) / 1000;
    if ("for" in time.dataset) return duration(seconds);
    if (seconds < -0.5) return `in ${duration(-seconds)}`;
    return seconds < 1 ? "just now" : `${duration(seconds)} ago`;
  }

  function tick() {
    if (document.hidden) return;
    for (const time of document.querySelectorAll("time[datetime]")) {
      const text = words(time);
      if (time.textContent !== text) time.textContent = text;
    }
  }

  // ── parts of the page that have changed ─────────────────────────────────────────────────

  // The new HTML of parts that cannot be replaced yet.
  const waiting = new Map();

  const partOf = (name) => document.querySelector(`[data-part="${CSS.escape(name)}"]`);
  const hovers = matchMedia("(hover: hover)"); // after a touch, :hover stays where the finger was
  const isPointedAt = (element) => hovers.matches && element.matches(":hover");

  // Whether a person is at work in a part.
  function isBusy(part) {
    if (document.querySelector("dialog[open]")) return true; // a form that is taken away cannot be sent
    const selection = getSelection();
    if (!selection.isCollapsed && part.contains(selection.anchorNode)) return true;
    return part.contains(document.activeElement) && document.activeElement.matches("select, textarea, [type=search]");
  }

  // Rows do not move under the pointer: a list with other rows waits until the pointer leaves it.
  function wouldMove(part, html) {
    if (![...part.querySelectorAll(".rows, .brief, .groups")].some(isPointedAt)) return false;
    const coming = document.createElement("template");
    coming.innerHTML = html;
    const rowsIn = (place) => [...place.querySelectorAll("[data-row]")].map((row) => row.id).join();
    return rowsIn(part) !== rowsIn(coming.content);
  }

  // The row under the pointer or with the focus, in any part.
  function rowInUse() {
    return [...document.querySelectorAll("[data-row]")].find(isPointedAt) || document.activeElement?.closest("[data-row]");
  }

  function update(name, html) {
    const part = partOf(name);
    if (!part) return;
    if (isBusy(part) || wouldMove(part, html)) waiting.set(name, html);
    else replace(name, html);
    showHeld();
  }

  function updateWaiting() {
    for (const [name, html] of [...waiting]) update(name, html);
    showHeld();
  }

  function showHeld() {
    const sign = document.getElementById("held");
    const held = [...waiting.keys()].some((name) => !isBusy(partOf(name)));
    if (sign.hidden === held) sign.hidden = !held;
    if (!waiting.size && !rowInUse()) document.body.style.minHeight = "";
  }

  // If rows come in above the row in use, scroll by as much as they push it.
  function replace(name, html) {
    waiting.delete(name);
    const row = rowInUse(), before = row?.getBoundingClientRect().top;
    swap(partOf(name), html);
    const after = row && document.getElementById(row.id);
    if (!after) return;
    const pushed = after.getBoundingClientRect().top - before;
    if (Math.abs(pushed) < 1) return;
    const short = innerHeight + scrollY + pushed - root.scrollHeight;
    if (short > 0) document.body.style.minHeight = `${root.scrollHeight + short}px`;
    scrollBy({ top: pushed, behavior: "instant" });
  }

  // A selector that finds the same element in the new HTML.
  function keyOf(element) {
    const name = ["id", "aria-label", "href"].find((each) => element.getAttribute(each));
    if (name) return `${element.tagName}[${name}="${CSS.escape(element.getAttribute(name))}"]`;
    const action = element.form?.getAttribute("action");
    return action ? `form[action="${CSS.escape(action)}"] button` : null;
  }

  // A screen reader reads out the state of the queue, or of the job, when it changes.
  const sentence = (part) => part.querySelector(".health, h1 .badge")?.textContent || "";

  // Whether a person has chosen an option and not sent it yet.
  const isChanged = (select) =>
    select.selectedIndex !== Math.max(0, [...select.options].findIndex((option) => option.defaultSelected));

  // Replace the HTML; keep the focus, the choices and the places that are scrolled to.
  function swap(part, html) {
    const all = (selector) => [...part.querySelectorAll(selector)];
    const scrollable = () => all("pre[aria-label], ul, .scroll");
    const focused = part.contains(document.activeElement) && keyOf(document.activeElement);
    const checked = new Set(all("input[name=id]:checked").map((box) => box.value));
    const chosen = new Map(all("select").filter(isChanged).map((select) => [select.name, select.value]));
    const scrolls = scrollable().map((element) =>
      [element.scrollTop, element.scrollLeft, element.scrollHeight - element.scrollTop - element.clientHeight < 24]);
    const before = sentence(part);
    part.innerHTML = html;
    const after = sentence(part);
    if (before !== after) document.getElementById("news").textContent = after;
    for (const box of all("input[name=id]")) box.checked = checked.has(box.value);
    for (const select of all("select")) if (chosen.has(select.name)) select.value = chosen.get(select.name);
    scrollable().forEach((element, index) => {
      const [top, left, atEnd] = scrolls[index] || [0, 0, true];
      element.scrollLeft = left;
      element.scrollTop = "tail" in element.dataset && atEnd ? element.scrollHeight : top;
    });
    if (focused) part.querySelector(focused)?.focus({ preventScroll: true });
    prepare(part);
  }

  function prepare(place) {
    for (const box of place.querySelectorAll("#all-of-page")) box.hidden = false;
    tick();
  }

  // ── the stream ──────────────────────────────────────────────────────────────────────────

  let stream = null, heardAt = 0, timer = 0, failures = 0;

  const SIGNS = {
    on: ["live", "This page keeps itself up to date"],
    away: ["no spool", "The server does not reach its spool; what is shown is old"],
    off: ["offline", "The server does not answer; trying again"],
    paused: ["paused", "Quiet while the tab is hidden"],
  };

  function show(state, trouble = "") {
    const sign = document.getElementById("live"), banner = document.getElementById("trouble");
    const [text, title] = SIGNS[state];
    sign.hidden = false;
    if (sign.lastElementChild.textContent !== text) sign.lastElementChild.textContent = text;
    sign.className = `live ${state}`;
    sign.title = title;
    if (state === "off" || state === "paused" || partOf("away")) return;
    if (banner.textContent !== trouble) banner.textContent = trouble;
    banner.hidden = !trouble;
  }

  function close() {
    clearTimeout(timer);
    stream?.close();
    stream = null;
  }

  function open() {
    close();
    if (document.hidden) return;
    stream = new EventSource(document.body.dataset.live);
    heardAt = Date.now();
    const listen = (name, act) => stream.addEventListener(name, (event) => { heardAt = Date.now(); failures = 0; act(JSON.parse(event.data)); });
    listen("part", (sent) => update(sent.name, sent.html));
    listen("tick", (sent) => { show(sent.trouble ? "away" : "on", sent.trouble); setClock(sent.now); updateWaiting(); });
    listen("reload", () => location.reload());
    stream.onerror = retry;
  }

  // An EventSource does not try again after an answer that is not a stream, as from a server that starts.
  function retry() {
    close();
    show("off");
    failures += 1;
    fetch(document.body.dataset.live, { method: "HEAD" })
      .then((answer) => { if (answer.status === 401) location.reload(); }) // the server wants its token again
      .catch(() => { /* no answer: the timer tries again */ });
    timer = setTimeout(open, Math.min(15000, 1000 * 2 ** Math.min(failures - 1, 4)));
  }

  function live() {
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) { close(); show("paused"); } else { open(); tick(); }
    });
    addEventListener("online", open);
    addEventListener("pageshow", (event) => { if (event.persisted) open(); });
    addEventListener("pagehide", close);
    document.addEventListener("pointerout", () => setTimeout(updateWaiting));
    document.querySelector("#held button").addEventListener("click", () => {
      for (const [name, html] of [...waiting]) replace(name, html);
      showHeld();
    });
    // Race: the stream may show the effect of a form before the form is answered. A reload then would lose the answer.
    document.addEventListener("submit", (event) => { if (!event.defaultPrevented) close(); });
    setInterval(() => { if (stream && Date.now() - heardAt > 10000) retry(); tick(); }, 1000);
    open();
  }

  // ── questions before something is destroyed ─────────────────────────────────────────────

  function questions() {
    const dialog = document.getElementById("ask");
    let asked = null;
    document.addEventListener("submit", (event) => {
      const button = event.submitter, form = event.target;
      if (form.dataset.answered) { delete form.dataset.answered; return; }
      let question = button?.dataset.ask || form.dataset.ask, number = button?.dataset.number || "";
      if (button?.value === "chosen") {
        const chosen = form.querySelectorAll("input[name=id]:checked").length;
        if (!chosen) return;
        if (chosen > (button.dataset.askAbove || 1)) question = button.dataset.askMany.replace("{}", chosen);
        number = String(chosen);
      }
      if (!question) return;
      event.preventDefault();
      asked = { form, button, number };
      document.getElementById("ask-text").textContent = question;
      dialog.showModal();
      document.getElementById("ask-no").focus();
    });
    document.getElementById("ask-no").addEventListener("click", () => dialog.close());
    document.getElementById("ask-yes").addEventListener("click", () => {
      const { form, button, number } = asked;
      dialog.close();
      for (const [name, value] of [["sure", "yes"], ["number", number]])
        form.append(Object.assign(document.createElement("input"), { type: "hidden", name, value }));
      form.dataset.answered = "yes";
      form.requestSubmit(button);
    });
  }

  // ── keys and boxes ──────────────────────────────────────────────────────────────────────

  function keys() {
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.target.closest("input:not([type=checkbox]), textarea, select, dialog")) return;
      const filter = document.querySelector("input[data-focus]");
      if (filter) { event.preventDefault(); filter.focus(); filter.select(); }
    });
    document.addEventListener("change", (event) => {
      if (event.target.id !== "all-of-page") return;
      for (const box of document.querySelectorAll("input[name=id]")) box.checked = event.target.checked;
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    if (!document.body.dataset.live) return; // the page that asks for the token
    setClock(document.body.dataset.now);
    theme();
    questions();
    keys();
    prepare(document);
    for (const tail of document.querySelectorAll("pre[data-tail]")) tail.scrollTop = tail.scrollHeight;
    live();
  });
})();
