// The line to the server: commands out, texts and frames in; comes back by itself.

const LONGEST_WAIT = 8000; // ms
const FATAL = { 1003: true, 1008: true, 1009: true, 1013: true };

export class Connection {
  constructor(handlers) {
    this.handlers = handlers;
    this.wait = 250;
    this.open();
  }

  open() {
    this.socket = new WebSocket(`ws://${location.host}/live`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.wait = 250;
      this.handlers.opened();
    };
    this.socket.onmessage = ({ data }) => {
      if (typeof data === "string") {
        const message = JSON.parse(data);
        this.handlers[message.type]?.(message);
      } else {
        this.handlers.frame(readFrame(data));
      }
    };
    this.socket.onclose = ({ code, reason }) => {
      this.handlers.closed(reason, FATAL[code] === true);
      if (FATAL[code]) return;
      setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(2 * this.wait, LONGEST_WAIT);
    };
  }

  send(command) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(command));
  }
}

// Four bytes: the length of a JSON header; the header; planes of height x width bytes.
export function readFrame(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const [height, width] = header.shape;
  const planes = [];
  for (let at = 4 + length; at < buffer.byteLength; at += height * width) {
    planes.push(new Uint8Array(buffer, at, height * width));
  }
  return { ...header, height, width, planes };
}
