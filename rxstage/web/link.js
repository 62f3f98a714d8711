// The client's end of the protocol `rxstage.v1`: what is sent is numbered and kept till it has arrived, so that a session
// goes on over a new connection without loss and without doubles.

const HEAD = 8; // bytes before the sound in a binary frame
const SOUND = 1; // kind of a binary frame
const GAP = 1; // flag: sound before it was left out
const ACK_EVERY = 32; // numbered frames
const KEPT = 256; // frames that are kept till they have arrived
const CLOGGED = 32_000; // bytes on their way, from which on sound is left out: a second of it
const PING = 5_000; // milliseconds
const DEAD = 15_000; // milliseconds without a word, after which a connection is given up
const WAITS = [300, 800, 2_000, 4_000, 8_000]; // milliseconds before a connection is tried again
const NUMBERED = new Set(["text", "message", "end_of_turn", "interrupt", "end"]);
const FINAL = {
  1000: "The conversation has ended.",
  4400: "The server did not understand this page; reload it.",
  4401: "The token is missing, or not the right one.",
  4403: "This page may not do that here.",
  4406: "The server does not take this sound.",
  4409: "The conversation goes on in another window.",
  4426: "The server speaks another version; reload the page.",
  4500: "The pipeline failed.",
};

/**
 * A session that outlives its connections. Events: `state` (detail: `connecting`, `open` or `closed`, a text, and why),
 * `welcome` (detail: the message), `message`, `sound` (detail: an `ArrayBuffer` of samples), `delay` (detail:
 * milliseconds to the server and back).
 */
export class Link extends EventTarget {
  constructor(url, { token = null, wants = 24_000 } = {}) {
    super();
    this.url = url;
    this.token = token;
    this.wants = wants;
    this.session = null;
    this.dropped = 0; // frames of sound that were left out
    this.tries = 0;
    this.forget();
  }

  /** Begin a new numbering; what is no sound and has not arrived is sent in it. */
  forget() {
    const waiting = (this.kept ?? []).filter(({ message }) => message);
    this.sent = this.received = this.unacknowledged = 0;
    this.gap = false;
    this.kept = [];
    for (const { message } of waiting) this.number(message);
  }

  get open() {
    return this.state === "open";
  }

  tell(state, text, more = {}) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state, text, ...more } }));
  }

  connect() {
    clearTimeout(this.retry);
    this.leave();
    this.tell("connecting", this.tries ? "Reconnecting…" : "Connecting…");
    const socket = (this.socket = new WebSocket(this.url, ["rxstage.v1"]));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      const hello = { type: "hello", version: 1, client: "page", received: this.received };
      hello.sends = { sample_rate: 16_000 };
      hello.wants = { sample_rate: this.wants };
      if (this.token) hello.token = this.token;
      if (this.session) hello.session = this.session;
      socket.send(JSON.stringify(hello));
    };
    socket.onmessage = ({ data }) => this.take(data);
    socket.onclose = ({ code, reason }) => this.lost(code, reason);
    this.heard = performance.now();
    this.pulse = setInterval(() => this.beat(), PING);
  }

  /** Close the connection; `code` 1000 ends the session. */
  leave(code = 3000) {
    clearInterval(this.pulse);
    const socket = this.socket;
    this.socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close(code);
    }
  }

  lost(code, reason) {
    this.leave();
    if (code in FINAL) {
      this.session = null;
      this.kept = this.kept.filter(() => code === 4401); // what was written waits for the token
      this.forget();
      this.tell("closed", "Not connected", { code, reason, why: FINAL[code] });
      return;
    }
    const wait = WAITS[Math.min(this.tries++, WAITS.length - 1)] * (0.75 + Math.random() / 2);
    this.tell("connecting", code === 4503 ? "The server is busy…" : "Reconnecting…", { code, reason });
    this.retry = setTimeout(() => this.connect(), wait);
  }

  beat() {
    if (performance.now() - this.heard > DEAD) this.lost(1006, "no word for too long");
    else if (this.open) this.transmit(JSON.stringify({ type: "ping", time: performance.now() }));
  }

  take(data) {
    this.heard = performance.now();
    if (data instanceof ArrayBuffer) {
      const head = new DataView(data);
      if (data.byteLength > HEAD && head.getUint8(0) === SOUND && this.isNew(head.getUint32(4, true))) {
        this.dispatchEvent(new CustomEvent("sound", { detail: data.slice(HEAD) }));
      }
      return;
    }
    const message = JSON.parse(data);
    switch (message.type) {
      case "welcome":
        this.welcome(message);
        break;
      case "ack":
        this.arrived(message.received);
        break;
      case "ping":
        this.transmit(JSON.stringify({ type: "pong", time: message.time }));
        break;
      case "pong":
        this.dispatchEvent(new CustomEvent("delay", { detail: performance.now() - message.time }));
        break;
      case "bye":
        break; // the close frame says why
      default:
        if (this.isNew(message.sequence)) this.dispatchEvent(new CustomEvent("message", { detail: message }));
    }
  }

  isNew(sequence) {
    if (sequence <= this.received) return false;
    this.received = sequence;
    if (++this.unacknowledged >= ACK_EVERY) {
      this.unacknowledged = 0;
      this.transmit(JSON.stringify({ type: "ack", received: sequence }));
    }
    return true;
  }

  welcome(message) {
    this.tries = 0;
    if (message.resumed) this.arrived(message.received);
    else this.forget();
    this.session = message.session;
    for (const { frame } of this.kept) this.transmit(frame);
    this.tell("open", "Connected");
    this.dispatchEvent(new CustomEvent("welcome", { detail: message }));
    this.beat();
  }

  arrived(received) {
    this.kept = this.kept.filter(({ sequence }) => sequence > received);
  }

  /** Send a message now, or once there is a connection; false where too many wait. */
  send(message) {
    if (!NUMBERED.has(message.type)) throw new Error(`a page does not send ${message.type}`);
    if (!this.open && this.kept.length >= KEPT) return false;
    const frame = this.number(message);
    if (this.open) this.transmit(frame);
    return true;
  }

  number(message) {
    const sequence = ++this.sent;
    const frame = JSON.stringify({ ...message, sequence });
    this.keep({ sequence, frame, message });
    return frame;
  }

  /** Send a frame that has room for its head; it is left out where there is no connection or it is clogged. */
  sound(frame) {
    if (!this.open || this.socket.bufferedAmount > CLOGGED) {
      this.dropped += 1;
      this.gap = true;
      return;
    }
    const head = new DataView(frame);
    head.setUint8(0, SOUND);
    head.setUint8(1, this.gap ? GAP : 0);
    head.setUint32(4, ++this.sent, true);
    this.gap = false;
    this.keep({ sequence: this.sent, frame });
    this.transmit(frame);
  }

  keep(entry) {
    this.kept.push(entry);
    if (this.kept.length > KEPT) {
      const oldest = this.kept.findIndex(({ message }) => !message);
      this.kept.splice(Math.max(oldest, 0), 1);
    }
  }

  transmit(frame) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(frame);
  }
}
