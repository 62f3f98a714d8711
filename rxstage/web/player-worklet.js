// Plays what arrives. It begins when a little is in store, so that what comes late is not heard as a gap, and falls
// silent at once when it is told to.

import { Resampler } from "./resampler.js";

const FADE = 0.004; // seconds in which it falls silent: a hard cut clicks
const LONGEST = 10; // seconds that it holds
const REPORT = 0.05; // seconds of sound between two reports

class Player extends AudioWorkletProcessor {
  constructor({ processorOptions: { store, most } }) {
    super();
    this.first = this.store = store * sampleRate; // samples in store before it begins
    this.most = most * sampleRate;
    this.queue = []; // samples, and marks between them
    this.queued = 0; // samples
    this.at = 0; // in the first piece
    this.running = false;
    this.ended = true; // nothing more of this answer is to come
    this.fading = null; // what is still to be heard of a cut answer
    this.rate = 0;
    this.played = this.flushed = this.late = this.lost = 0;
    this.power = this.since = 0;
    this.port.onmessage = ({ data }) => this[data.type](data);
  }

  sound({ samples, rate }) {
    if (this.rate !== rate || !this.resampler) {
      this.rate = rate;
      this.resampler = new Resampler(rate, sampleRate);
    }
    const whole = new Int16Array(samples);
    const floats = new Float32Array(whole.length);
    for (let at = 0; at < whole.length; at++) floats[at] = whole[at] / 32768;
    const piece = this.resampler.push(floats);
    this.ended = false;
    if (this.queued + piece.length > LONGEST * sampleRate) {
      this.lost += piece.length;
      return;
    }
    this.queue.push(piece);
    this.queued += piece.length;
  }

  /** What comes before this was heard, once it is reported. */
  mark({ id }) {
    this.queue.push(id);
    if (!this.queued) this.tell(true);
  }

  /** Nothing more of this answer is to come: what is there is played, however little. */
  end() {
    this.ended = true;
  }

  flush() {
    if (this.running) {
      const tail = this.take(Math.round(FADE * sampleRate));
      this.fading = tail.map((sample, at) => sample * (1 - at / tail.length));
    }
    this.flushed += this.queued;
    this.queue = [];
    this.queued = this.at = 0;
    this.running = false;
    this.ended = true;
    this.resampler = null;
    this.store = this.first;
    this.tell(true);
  }

  take(count) {
    const out = new Float32Array(count);
    let done = 0;
    while (this.queue.length) {
      const piece = this.queue[0];
      if (typeof piece === "number") {
        this.port.postMessage({ type: "heard", id: this.queue.shift() });
        continue;
      }
      if (done === count) break;
      const some = Math.min(count - done, piece.length - this.at);
      out.set(piece.subarray(this.at, this.at + some), done);
      done += some;
      this.at += some;
      this.queued -= some;
      if (this.at === piece.length) {
        this.queue.shift();
        this.at = 0;
      }
    }
    return out;
  }

  process(_, [channels]) {
    const out = channels[0];
    if (!this.running && this.queued && (this.ended || this.queued >= this.store)) {
      this.running = true;
      this.port.postMessage({ type: "began" });
    }
    if (this.running) {
      const before = this.queued;
      out.set(this.take(out.length));
      this.played += before - this.queued;
      if (!this.queued) {
        this.running = false;
        if (!this.ended) {
          this.late += 1;
          this.store = Math.min(this.store * 1.5, this.most); // this connection needs more
        }
        this.tell(true);
      }
    }
    if (this.fading) {
      const some = this.fading.subarray(0, out.length);
      for (let at = 0; at < some.length; at++) out[at] += some[at];
      this.fading = this.fading.length > out.length ? this.fading.subarray(out.length) : null;
    }
    for (let channel = 1; channel < channels.length; channel++) channels[channel].set(out);
    for (const sample of out) this.power += sample * sample;
    this.since += out.length;
    if (this.since >= REPORT * sampleRate) this.tell(this.running);
    return true;
  }

  tell(worth) {
    if (worth || this.power > 0 || this.loud) {
      this.loud = this.power > 0;
      this.port.postMessage({
        type: "state",
        rms: this.since ? Math.sqrt(this.power / this.since) : 0,
        running: this.running,
        queued: this.queued / sampleRate,
        played: this.played,
        flushed: this.flushed,
        late: this.late,
        lost: this.lost,
      });
    }
    this.power = this.since = 0;
  }
}

registerProcessor("player", Player);
