// Makes an open page live. Everything works without it; it only saves reloading.
"use strict";

(() => {
  const root = document.documentElement;
  const THEME = "queuectl-theme";
  const stored = () => { try { return localStorage.getItem(THEME); } catch { return null; } };
  const wanted = stored();
  if (wanted === "light" || wanted === "dark") root.dataset.theme = wanted;

  // ── light and dark ──────────────────────────────────────────────────────────────────────

  function theme() {
    const button = document.getElementById("theme");
    if (!button) return;
    button.hidden = false;
    button.addEventListener("click", () => {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      try { localStorage.setItem(THEME, root.dataset.theme); } catch { /* a private window keeps nothing */ }
    });
  }

  // ── times, by the clock of the server ───────────────────────────────────────────────────

  let ahead = 0;
  const hear = (now) => { ahead = Date.parse(now) - Date.now(); };

  function lasting(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
    if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
    return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
  }

  function words(time) {
    const seconds = (Date.now() + ahead - Date.parse(time.dateTime)) / 1000;
    if ("for" in time.dataset) return lasting(seconds);
    if (seconds < -0.5) return `in ${lasting(-seconds)}`;
    return seconds < 1 ? "just now" : `${lasting(seconds)} ago`;
  }

  function tick() {
    if (document.hidden) return;
    for (const time of document.querySelectorAll("time[datetime]")) {
      const text = words(time);
      if (time.textContent !== text) time.textContent = text;
    }
  }

  // ── parts that the server sends anew ────────────────────────────────────────────────────

  const waiting = new Map();

  // Rows do not move away from under the pointer: where some have come or gone, that waits.
  const LISTS = ".rows, .brief, .groups";
  const hovers = matchMedia("(hover: hover)"); // after a touch, :hover stays where the finger was
  const rowsOf = (place) => [...place.querySelectorAll("[data-row]")].map((row) => row.id).join();

  const isPointedAt = (element) => hovers.matches && element.matches(":hover");

  function wouldMove(part, html) {
    if (![...part.querySelectorAll(LISTS)].some(isPointedAt)) return false;
    const coming = document.createElement("template");
    coming.innerHTML = html;
    return rowsOf(part) !== rowsOf(coming.content);
  }

  // The row that is pointed at or has the focus, in whatever part of the page.
  function rowInUse() {
    const at = document.activeElement;
    return [...document.querySelectorAll("[data-row]")].find(isPointedAt) || (at && at.closest("[data-row]"));
  }

  // What comes in above that row must not push it away: scroll by as much as it was pushed.
  function keepInPlace(row, act) {
    const id = row && row.id, before = row && row.getBoundingClientRect().top;
    act();
    const after = id && document.getElementById(id);
    if (!after) return;
    const pushed = after.getBoundingClientRect().top - before;
    if (Math.abs(pushed) < 1) return;
    const short = innerHeight + scrollY + pushed - root.scrollHeight;
    if (short > 0) document.body.style.minHeight = `${root.scrollHeight + short}px`;
    scrollBy({ top: pushed, behavior: "instant" });
  }

  function showHeld() {
    const sign = document.getElementById("held");
    const held = [...waiting.keys()].some((name) => !isBusy(partOf(name)));
    if (sign && sign.hidden === held) sign.hidden = !held;
    if (!waiting.size && !rowInUse()) document.body.style.minHeight = "";
  }

  function bringUpToDate() {
    for (const [name, html] of [...waiting]) replace(name, html);
    showHeld();
  }

  const partOf = (name) => document.querySelector(`[data-part="${CSS.escape(name)}"]`);

  function isBusy(part) {
    if (document.querySelector("dialog[open]")) return true; // a form that is taken away cannot be sent
    const selection = getSelection();
    if (selection && !selection.isCollapsed && part.contains(selection.anchorNode)) return true;
    const at = document.activeElement;
    return part.contains(at) && (at.tagName === "SELECT" || at.tagName === "TEXTAREA" || at.type === "search");
  }

  const keyOf = (element) => element && (element.id ? `#${CSS.escape(element.id)}`
    : element.getAttribute("aria-label") ? `${element.tagName}[aria-label="${CSS.escape(element.getAttribute("aria-label"))}"]`
    : element.getAttribute("href") ? `${element.tagName}[href="${CSS.escape(element.getAttribute("href"))}"]`
    : element.tagName === "BUTTON" && element.form ? `form[action="${CSS.escape(element.form.getAttribute("action"))}"] button` : null);

  // What a screen reader is told of: how the queue, or the job, stands.
  const sentence = (part) => (part.querySelector(".health, h1 .badge") || { textContent: "" }).textContent;

  // Whether a person has chosen something that has not been sent yet.
  const isChanged = (select) =>
    select.selectedIndex !== Math.max(0, [...select.options].findIndex((option) => option.defaultSelected));

  function replace(name, html, anyway = false) {
    const part = partOf(name);
    if (!part) return;
    if (isBusy(part) || (!anyway && wouldMove(part, html))) { waiting.set(name, html); showHeld(); return; }
    waiting.delete(name);
    keepInPlace(rowInUse(), () => swap(part, html));
  }

  function swap(part, html) {
    const focused = part.contains(document.activeElement) ? keyOf(document.activeElement) : null;
    const checked = [...part.querySelectorAll("input[type=checkbox]:checked")].map((box) => box.value);
    const chosen = new Map([...part.querySelectorAll("select")].filter(isChanged).map((select) => [select.name, select.value]));
    const scrolls = new Map([...part.querySelectorAll("pre[aria-label], ul, .scroll")].map((element, index) =>
      [`${element.tagName}${index}`, [element.scrollTop, element.scrollLeft, element.scrollHeight - element.scrollTop - element.clientHeight < 24]]));
    const before = sentence(part);
    part.innerHTML = html;
    const after = sentence(part);
    if (before !== after) document.getElementById("news").textContent = after;
    for (const box of part.querySelectorAll("input[type=checkbox]")) if (box.value && checked.includes(box.value) && box.id !== "all-of-page") box.checked = true;
    for (const select of part.querySelectorAll("select")) if (chosen.has(select.name)) select.value = chosen.get(select.name);
    [...part.querySelectorAll("pre[aria-label], ul, .scroll")].forEach((element, index) => {
      const [top, left, end] = scrolls.get(`${element.tagName}${index}`) || [0, 0, true];
      element.scrollLeft = left;
      element.scrollTop = "tail" in element.dataset && end ? element.scrollHeight : top;
    });
    if (focused) { const again = part.querySelector(focused); if (again) again.focus({ preventScroll: true }); }
    prepare(part);
  }

  function prepare(place) {
    for (const box of place.querySelectorAll("#all-of-page")) box.hidden = false;
    tick();
  }

  // ── the line to the server ──────────────────────────────────────────────────────────────

  let line = null, heard = 0, again = 0, failures = 0;

  const SIGNS = {
    on: ["live", "This page keeps itself up to date"],
    away: ["no spool", "The server does not reach its spool; what is shown is old"],
    off: ["offline", "The server does not answer; trying again"],
    paused: ["paused", "Quiet while the tab is hidden"],
  };

  function show(state, trouble = "") {
    const sign = document.getElementById("live"), banner = document.getElementById("trouble");
    if (!sign) return;
    sign.hidden = false;
    const [text, title] = SIGNS[state];
    if (sign.lastElementChild.textContent !== text) sign.lastElementChild.textContent = text;
    sign.className = `live ${state}`;
    sign.title = title;
    if (state === "off" || state === "paused" || !banner || document.querySelector("[data-part=away]")) return;
    if (banner.textContent !== trouble) banner.textContent = trouble;
    banner.hidden = !trouble;
  }

  function close() {
    clearTimeout(again);
    if (line) line.close();
    line = null;
  }

  function open() {
    close();
    if (document.hidden || !document.body.dataset.live) return;
    line = new EventSource(document.body.dataset.live);
    heard = Date.now();
    const listen = (name, act) => line.addEventListener(name, (event) => { heard = Date.now(); failures = 0; act(JSON.parse(event.data)); });
    listen("part", (sent) => replace(sent.name, sent.html));
    listen("tick", (sent) => { show(sent.trouble ? "away" : "on", sent.trouble); hear(sent.now); bringUpToDate(); });
    listen("reload", () => location.reload());
    line.onerror = () => later();
  }

  // A browser gives up after an answer that is no stream, such as one of a server that has just started anew.
  function later() {
    close();
    show("off");
    failures += 1;
    fetch(document.body.dataset.live, { method: "HEAD" })
      .then((answer) => { if (answer.status === 401) location.reload(); }) // it wants its token again
      .catch(() => { /* it is away: tried again below */ });
    again = setTimeout(open, Math.min(15000, 1000 * 2 ** Math.min(failures - 1, 4)));
  }

  function live() {
    if (!document.querySelector("[data-part]")) return;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) { close(); show("paused"); } else { open(); tick(); }
    });
    addEventListener("online", open);
    document.addEventListener("pointerout", () => setTimeout(bringUpToDate));
    document.querySelector("#held button").addEventListener("click", () => {
      for (const [name, html] of [...waiting]) replace(name, html, true);
      showHeld();
    });
    addEventListener("pageshow", (event) => { if (event.persisted) open(); });
    addEventListener("pagehide", close);
    // Race: the server may tell of what a form did before it answers the form; to load the page anew
    // then would lose the answer.
    document.addEventListener("submit", (event) => { if (!event.defaultPrevented) close(); });
    setInterval(() => { if (line && Date.now() - heard > 10000) later(); tick(); }, 1000);
    open();
  }

  // ── asking before something is destroyed ────────────────────────────────────────────────

  function asking() {
    const dialog = document.getElementById("ask");
    if (!dialog || !dialog.showModal) return;
    let asked = null;
    document.addEventListener("submit", (event) => {
      const button = event.submitter, form = event.target;
      if (form.dataset.answered) { delete form.dataset.answered; return; }
      let question = (button && button.dataset.ask) || form.dataset.ask, number = (button && button.dataset.number) || "";
      if (button && button.value === "chosen") {
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
      if (event.target.closest && event.target.closest("input:not([type=checkbox]), textarea, select, dialog")) return;
      const filter = document.querySelector("input[data-focus]");
      if (filter) { event.preventDefault(); filter.focus(); filter.select(); }
    });
    document.addEventListener("change", (event) => {
      if (event.target.id !== "all-of-page") return;
      for (const box of document.querySelectorAll("input[name=id]")) box.checked = event.target.checked;
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    if (document.body.dataset.now) hear(document.body.dataset.now);
    theme();
    asking();
    keys();
    prepare(document);
    for (const tail of document.querySelectorAll("pre[data-tail]")) tail.scrollTop = tail.scrollHeight;
    live();
  });
})();
