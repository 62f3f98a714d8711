// Brings sound from one rate to another as it comes: a windowed sinc, cut at the lower of the two bands.

const CROSSINGS = 16; // zero crossings on each side of the middle
const PHASES = 256; // positions between two samples

/** A stream of mono samples at another rate. It holds as many as its filter is long. */
export class Resampler {
  constructor(from, to) {
    this.step = from / to;
    const stretch = Math.max(1, this.step);
    this.half = Math.ceil(CROSSINGS * stretch);
    this.taps = 2 * this.half;
    this.table = kernel(this.half, 0.94 / stretch);
    this.kept = new Float32Array(this.half); // silence before the beginning
    this.at = this.half; // where the next sample lies, in what is kept
  }

  /** The samples that are complete now. */
  push(samples) {
    if (this.step === 1) return samples;
    const all = new Float32Array(this.kept.length + samples.length);
    all.set(this.kept);
    all.set(samples, this.kept.length);
    const out = new Float32Array(Math.max(0, Math.ceil((all.length - this.half - this.at) / this.step)));
    let count = 0;
    while (this.at + this.half < all.length && count < out.length) {
      const whole = Math.floor(this.at);
      const row = this.table[Math.round((this.at - whole) * PHASES)];
      const first = whole - this.half + 1;
      let sum = 0;
      for (let tap = 0; tap < this.taps; tap++) sum += all[first + tap] * row[tap];
      out[count++] = sum;
      this.at += this.step;
    }
    const drop = Math.max(0, Math.min(Math.floor(this.at) - this.half, all.length));
    this.kept = all.slice(drop);
    this.at -= drop;
    return out.subarray(0, count);
  }
}

function kernel(half, cut) {
  const rows = [];
  for (let phase = 0; phase <= PHASES; phase++) {
    const row = new Float32Array(2 * half);
    let sum = 0;
    for (let tap = 0; tap < row.length; tap++) {
      const x = tap - half + 1 - phase / PHASES;
      const sinc = x === 0 ? 1 : Math.sin(Math.PI * cut * x) / (Math.PI * cut * x);
      const window = 0.42 + 0.5 * Math.cos((Math.PI * x) / half) + 0.08 * Math.cos((2 * Math.PI * x) / half);
      row[tap] = Math.abs(x) > half ? 0 : sinc * window;
      sum += row[tap];
    }
    for (let tap = 0; tap < row.length; tap++) row[tap] /= sum;
    rows.push(row);
  }
  return rows;
}
