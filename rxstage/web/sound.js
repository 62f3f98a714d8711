// The microphone and the loudspeaker.

const RATE = 16_000; // of what is sent [Hz]
const FRAME = 0.02; // seconds in one frame
const STORE = 0.06; // seconds that are in store before an answer is heard
const EARLY = 250; // messages to the player that wait till it is made
const MOST = 0.3; // seconds, at most, where a connection is uneven

const WHY = {
  NotAllowedError: "The browser does not give the microphone to this page; allow it in the settings of the page.",
  NotFoundError: "There is no microphone.",
  NotReadableError: "Another program has the microphone.",
};

/** Events: `frame` (detail: the frame, `rms`), `player` (detail: its report), `began` and `heard` of the player. */
export class Sound extends EventTarget {
  constructor() {
    super();
    this.rate = 0; // of what is played [Hz]
    this.player = null;
    this.early = []; // what came while the player was being made
    this.report = { played: 0, flushed: 0, late: 0, lost: 0, queued: 0, running: false, rms: 0 };
  }

  get listening() {
    return Boolean(this.stream);
  }

  /** Make ready to play; browsers allow it only after somebody has pressed a key or a button. */
  open() {
    this.opened ??= this.start().catch((error) => {
      this.opened = null;
      throw error;
    });
    return this.opened.then(() => this.context.resume());
  }

  async start() {
    if (!globalThis.AudioWorkletNode) throw new Error(WITHOUT);
    const context = (this.context = new AudioContext({ latencyHint: "interactive" }));
    await Promise.all(["/capture-worklet.js", "/player-worklet.js"].map((url) => context.audioWorklet.addModule(url)));
    const player = new AudioWorkletNode(context, "player", {
      numberOfInputs: 0,
      outputChannelCount: [2],
      processorOptions: { store: STORE, most: MOST },
    });
    player.port.onmessage = ({ data }) => {
      if (data.type === "state") this.report = data;
      this.dispatchEvent(new CustomEvent(data.type === "state" ? "player" : data.type, { detail: data }));
    };
    player.connect(context.destination);
    this.player = player;
    for (const message of this.early.splice(0)) this.tell(message);
  }

  /** Give the microphone's sound out in frames, till `mute`. */
  async listen() {
    if (!navigator.mediaDevices) throw new Error(WITHOUT);
    await this.open();
    const wanted = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    } catch (error) {
      throw new Error(WHY[error.name] ?? `The microphone cannot be had: ${error.message}`);
    }
    this.stream.getAudioTracks()[0].onended = () => this.dispatchEvent(new CustomEvent("gone"));
    this.source = this.context.createMediaStreamSource(this.stream);
    this.capture = new AudioWorkletNode(this.context, "capture", {
      numberOfOutputs: 0,
      processorOptions: { rate: RATE, frame: FRAME },
    });
    this.capture.port.onmessage = ({ data }) => this.dispatchEvent(new CustomEvent("frame", { detail: data }));
    this.source.connect(this.capture);
  }

  /** Let go of the microphone. */
  mute() {
    if (this.capture) this.capture.port.onmessage = null;
    this.source?.disconnect();
    for (const track of this.stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.stream = this.source = this.capture = null;
  }

  /** Whether what is played will be heard: somebody has pressed something. */
  get ready() {
    return Boolean(this.opened);
  }

  play(samples) {
    this.tell({ type: "sound", samples, rate: this.rate });
  }

  /** Report `heard` with this number once what was played before it is heard. */
  mark(id) {
    this.tell({ type: "mark", id });
  }

  /** Nothing more of this answer is to come. */
  end() {
    this.tell({ type: "end" });
  }

  /** Fall silent at once. */
  flush() {
    this.early = [];
    this.tell({ type: "flush" });
  }

  tell(message) {
    if (this.player) this.player.port.postMessage(message, message.samples ? [message.samples] : []);
    else if (this.opened && this.early.length < EARLY) this.early.push(message);
  }
}

const WITHOUT = "Browsers give the microphone only to pages from this machine or over https.";
