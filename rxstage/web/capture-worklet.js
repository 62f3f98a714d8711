// From the microphone to frames of 20 ms: 16 kHz, mono, 16 bit, with room in front for the head of the protocol.

import { Resampler } from "./resampler.js";

const HEAD = 8; // bytes

class Capture extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate, frame } }) {
    super();
    this.resampler = new Resampler(sampleRate, rate);
    this.size = Math.round(rate * frame);
    this.begin();
  }

  begin() {
    this.view = new DataView(new ArrayBuffer(HEAD + 2 * this.size));
    this.count = 0;
    this.power = 0;
  }

  process([channels]) {
    if (!channels.length) return true; // nothing is connected
    let mono = channels[0];
    if (channels.length > 1) {
      mono = mono.slice();
      for (const channel of channels.slice(1)) for (let at = 0; at < mono.length; at++) mono[at] += channel[at];
      for (let at = 0; at < mono.length; at++) mono[at] /= channels.length;
    }
    for (const sample of this.resampler.push(mono)) {
      const held = Math.max(-1, Math.min(1, sample));
      this.view.setInt16(HEAD + 2 * this.count++, Math.round(held * 32767), true);
      this.power += held * held;
      if (this.count === this.size) {
        const frame = this.view.buffer;
        this.port.postMessage({ frame, rms: Math.sqrt(this.power / this.size) }, [frame]);
        this.begin();
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
