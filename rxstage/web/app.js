// The page put together.

import { Graph } from "./graph.js";
import { Link } from "./link.js";
import { Sound } from "./sound.js";
import { Latency, Meter, Talk } from "./view.js";

const find = (id) => document.getElementById(id);
const talk = new Talk();
const latency = new Latency();
const graph = new Graph(find("graph"), find("edges"));
const sound = new Sound();
const levels = { in: new Meter("in"), out: new Meter("out") };
const link = new Link(address(), { token: token() });
const state = { begun: false, answering: false, first: 0, marks: 0, delay: null };

function address() {
  const url = new URL("/talk", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.search = url.hash = "";
  return url.href;
}

/** The token of the page's address, which then shows it no more; a reload still knows it. */
function token() {
  const url = new URL(location.href);
  const given = url.searchParams.get("token");
  if (given !== null) {
    url.searchParams.delete("token");
    history.replaceState(null, "", url);
    sessionStorage.setItem("token", given);
  }
  return sessionStorage.getItem("token");
}

// ------------------------------------------------------------------------------------------ the connection

link.addEventListener("state", ({ detail }) => {
  find("state").dataset.state = detail.state;
  find("state-text").textContent = detail.text;
  const asked = detail.code === 4401;
  find("again").hidden = detail.state !== "closed" || asked;
  find("token-form").hidden = !asked;
  if (detail.state === "closed") {
    silence();
    if (asked) {
      sessionStorage.removeItem("token");
      find("token").focus();
    } else notice(detail.reason ? `${detail.why} (${detail.reason})` : detail.why);
  } else if (detail.state === "open") notice("");
});

link.addEventListener("welcome", ({ detail }) => {
  sound.rate = detail.sends.sample_rate;
  if (detail.resumed) return;
  if (state.begun) {
    silence();
    latency.clear();
    talk.note("A new conversation: the server does not know the one before.");
  }
  state.begun = true;
});

link.addEventListener("delay", ({ detail }) => {
  find("state-text").textContent = `Connected · ${Math.max(1, Math.round(detail))} ms`;
});

link.addEventListener("sound", ({ detail }) => {
  if (!sound.ready) return; // nobody has pressed anything yet: browsers play nothing then
  if (!state.first) state.first = performance.now();
  busy(true);
  sound.play(detail);
});

const takes = {
  transcript: ({ text, final }) => {
    talk.user(text, final);
    if (final) busy(true);
  },
  text: ({ text }) => {
    busy(true);
    talk.piece(text);
  },
  message: ({ role, text }) => {
    if (role === "assistant") talk.whole(text);
  },
  end_of_turn: () => {
    talk.end();
    sound.end();
    sound.mark(++state.marks);
    if (!sound.ready) busy(false);
    state.first = 0;
  },
  interrupt: () => silence(),
  failure: ({ error, message, stage }) => {
    talk.end();
    talk.note(`${stage || "the pipeline"}: ${message || error}`, "note failure");
  },
  tool_call: ({ name }) => talk.note(`uses ${name}`),
  data: ({ value }) => {
    if (value?.kind === "timing") latency.show(value);
    else if (value?.kind === "pressure") graph.show(value.edges);
  },
};

link.addEventListener("message", ({ detail }) => {
  if (Object.hasOwn(takes, detail.type)) takes[detail.type](detail);
});

/** The answer is cut off: nothing more of it is heard. */
function silence() {
  sound.flush();
  if (state.answering) talk.stopped();
  state.first = 0;
  busy(false);
}

function busy(answering) {
  state.answering = answering;
  find("stop").disabled = !answering;
}

function notice(text) {
  find("notice").textContent = text;
  find("notice").hidden = !text;
}

// ------------------------------------------------------------------------------------------ microphone and loudspeaker

sound.addEventListener("frame", ({ detail }) => {
  levels.in.show(detail.rms);
  link.sound(detail.frame);
});
sound.addEventListener("player", ({ detail }) => levels.out.show(detail.rms));
sound.addEventListener("began", () => {
  if (state.first) latency.began((performance.now() - state.first) / 1000);
});
sound.addEventListener("heard", ({ detail }) => {
  if (detail.id !== state.marks) return;
  busy(false);
  talk.heard();
});
sound.addEventListener("gone", () => {
  mute();
  notice("The microphone is gone.");
});

async function listen() {
  const button = find("mic");
  button.disabled = true;
  try {
    await sound.listen();
    button.setAttribute("aria-pressed", "true");
    notice("");
  } catch (error) {
    sound.mute();
    notice(error.message);
  } finally {
    button.disabled = false;
  }
}

function mute() {
  sound.mute();
  levels.in.rest();
  find("mic").setAttribute("aria-pressed", "false");
  link.send({ type: "end_of_turn" }); // what was being said is complete
}

// ------------------------------------------------------------------------------------------ what is pressed

find("mic").addEventListener("click", () => (sound.listening ? mute() : listen()));

find("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("text").value.trim();
  if (!text) return;
  sound.open().catch((error) => notice(error.message)); // the answer is heard, too
  stop();
  if (!link.send({ type: "message", role: "user", text }) || !link.send({ type: "end_of_turn" })) {
    notice("Too much waits for a connection.");
    return;
  }
  talk.user(text);
  busy(true);
  find("text").value = "";
});

find("stop").addEventListener("click", stop);
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape") stop();
});

function stop() {
  if (!state.answering) return;
  silence();
  link.send({ type: "interrupt", reason: "the user" });
}

find("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  link.token = find("token").value;
  sessionStorage.setItem("token", link.token);
  find("token").value = "";
  link.connect();
});

find("again").addEventListener("click", () => link.connect());
addEventListener("online", () => {
  if (link.state === "connecting") link.connect();
});
addEventListener("pagehide", () => link.leave(1000));
addEventListener("pageshow", ({ persisted }) => {
  if (persisted) link.connect();
});

const wide = matchMedia("(min-width: 900px)");
const unfold = () => {
  for (const panel of document.querySelectorAll("aside details")) panel.open = wide.matches;
};
wide.addEventListener("change", unfold);
unfold();

graph.load("/graph.svg").catch(() => {});
link.connect();
globalThis.rxstage = { link, sound }; // for the console
