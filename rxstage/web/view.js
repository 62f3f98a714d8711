// What is shown: the conversation, the levels, and how long each stage took.

const LINES = 400; // of the conversation that are kept
const DRAWN = 8_000; // characters of an answer up to which its marks are drawn
const TURNS = 5; // whose latency is shown
const FLOOR = -60; // dBFS: the left end of a meter
const find = (id) => document.getElementById(id);

function make(tag, text = "", kind = "") {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

/** Text with its **strong** words and its `code`; all else stays as it is written. */
function marked(text) {
  return text.split(/(\*\*[^*\n]+\*\*|`[^`\n]+`)/).map((part) => {
    if (part.length > 4 && part.startsWith("**") && part.endsWith("**")) return make("strong", part.slice(2, -2));
    if (part.length > 2 && part.startsWith("`") && part.endsWith("`")) return make("code", part.slice(1, -1));
    return document.createTextNode(part);
  });
}

/** The conversation: a line for each turn, written while it comes. */
export class Talk {
  constructor() {
    this.log = find("log");
    this.partial = this.answer = null;
  }

  get low() {
    return this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 80;
  }

  line(kind, text) {
    find("empty").hidden = true;
    const low = this.low;
    const line = make("li", text, kind);
    this.log.append(line);
    while (this.log.children.length > LINES) this.log.firstChild.remove();
    if (low || kind === "user") this.log.scrollTop = this.log.scrollHeight;
    return line;
  }

  /** What the user was heard to say, or has written. */
  user(text, final = true) {
    if (this.partial) this.partial.textContent = text;
    else this.partial = this.line("user", text);
    this.partial.classList.toggle("partial", !final);
    if (final) {
      this.partial = null;
      this.announce(`You: ${text}`);
    }
  }

  piece(text) {
    if (!this.answer) {
      if (!text.trim()) return;
      this.text = "";
      this.answer = this.line("assistant streaming");
    }
    this.text = (this.text + text).trimStart();
    const low = this.low;
    if (this.text.length < DRAWN) this.answer.replaceChildren(...marked(this.text));
    else this.answer.append(text);
    if (low) this.log.scrollTop = this.log.scrollHeight;
  }

  /** The answer is complete. */
  whole(text) {
    if (!this.answer && text.trim()) this.piece(text);
    if (this.answer) this.announce(`Answer: ${this.answer.textContent}`);
    this.end();
  }

  end(stopped = false) {
    this.answer?.classList.remove("streaming");
    if (stopped) this.answer?.classList.add("stopped");
    this.newest = this.answer ?? this.newest;
    this.answer = null;
  }

  /** What was being said was cut off. */
  stopped() {
    if (this.answer) this.end(true);
    else this.newest?.classList.add("stopped");
    this.newest = null;
  }

  /** All of the newest answer was heard: nothing of it can be stopped. */
  heard() {
    this.newest = null;
  }

  note(text, kind = "note") {
    this.line(kind, text);
    this.announce(text);
  }

  announce(text) {
    find("announcer").textContent = text;
  }
}

/** A meter that rises at once and falls slowly. */
export class Meter {
  constructor(id) {
    this.box = find(id);
    this.fill = this.box.firstElementChild;
    this.level = FLOOR;
    this.told = 0;
  }

  show(rms) {
    const now = Math.max(FLOOR, 20 * Math.log10(Math.max(rms, 1e-6)));
    this.level = Math.max(now, this.level - 4);
    this.fill.style.transform = `scaleX(${1 - this.level / FLOOR})`;
    if (performance.now() - this.told > 500 || now === FLOOR) {
      this.told = performance.now();
      this.box.setAttribute("aria-valuenow", Math.round(now));
      this.box.setAttribute("aria-valuetext", now === FLOOR ? "silent" : `${Math.round(now)} decibels`);
    }
  }

  rest() {
    this.level = FLOOR;
    this.show(0);
  }
}

const milliseconds = (seconds) => `${Math.round(1000 * Math.max(0, seconds))}`;

/** How long the stages of the newest turns took. */
export class Latency {
  constructor() {
    this.turns = new Map();
  }

  /** What the server has measured: seconds from the end of the speech to each step. */
  show({ turn, typed, steps }) {
    this.turns.set(turn, { ...this.turns.get(turn), typed, steps });
    for (const old of [...this.turns.keys()].slice(0, -TURNS)) this.turns.delete(old);
    this.draw();
  }

  /** Seconds between the arrival of an answer's first sound and its being heard. */
  began(seconds) {
    const newest = [...this.turns.values()].pop(); // its times may still be on their way
    if (newest && newest.play === undefined) {
      newest.play = seconds;
      this.draw();
    }
  }

  clear() {
    this.turns.clear();
    this.draw();
  }

  draw() {
    const rows = [];
    for (const [turn, { typed, steps, play }] of [...this.turns].reverse()) {
      const { heard, transcript, token, audio } = steps;
      const parts = [
        ["pause", heard],
        ["words", typed ? undefined : transcript - heard],
        ["token", token - transcript],
        ["audio", audio - token],
        ["play", play],
      ];
      const row = make("tr");
      const name = make("th", `${turn}`);
      name.scope = "row";
      row.append(name);
      const bar = make("div");
      let sum = 0;
      for (const [kind, seconds] of parts) {
        const known = Number.isFinite(seconds);
        row.append(make("td", known ? milliseconds(seconds) : "–"));
        if (known) {
          sum += Math.max(0, seconds);
          const part = make("i", "", kind);
          part.style.flexGrow = Math.max(0, seconds);
          bar.append(part);
        }
      }
      row.append(make("td", milliseconds(sum)));
      const below = make("tr", "", "bar");
      const cell = make("td");
      cell.colSpan = parts.length + 2;
      cell.append(bar);
      below.append(cell);
      below.setAttribute("aria-hidden", "true");
      rows.push(row, below);
    }
    find("turns").replaceChildren(...rows);
    find("latency").hidden = !rows.length;
    find("latency-none").hidden = Boolean(rows.length);
  }
}
