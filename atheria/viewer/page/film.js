// Films and pictures of a canvas, as files that the browser saves.

const KINDS = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm", "video/mp4"];

export class Film {
  constructor(canvas) {
    this.canvas = canvas;
  }

  get isRunning() {
    return this.recorder?.state === "recording";
  }

  static get isPossible() {
    return typeof MediaRecorder !== "undefined" && "captureStream" in HTMLCanvasElement.prototype;
  }

  start() {
    const mimeType = KINDS.find((kind) => MediaRecorder.isTypeSupported(kind));
    const stream = this.canvas.captureStream(30);
    this.recorder = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: 8e6 });
    this.parts = [];
    this.recorder.ondataavailable = ({ data }) => data.size && this.parts.push(data);
    this.recorder.start(1000);
  }

  // Saves it; resolves with its size in bytes.
  stop(name) {
    return new Promise((resolve) => {
      this.recorder.onstop = () => {
        this.recorder.stream.getTracks().forEach((track) => track.stop());
        const film = new Blob(this.parts, { type: this.recorder.mimeType });
        save(film, `${name}.${film.type.includes("mp4") ? "mp4" : "webm"}`);
        resolve(film.size);
      };
      this.recorder.stop();
    });
  }
}

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
