// The field on its canvas: what is shown of it, and how pointers and keys move it and draw on it.

import { PlainRenderer, WebGLRenderer } from "./renderers.js";

const MOST_SCALE = 64; // CSS pixels a cell

export class Field {
  // canvas, overlay: on top of each other; changed: called when the camera or the cursor has moved.
  // renderer: "webgl" or "2d" to have that one; the faster one otherwise.
  constructor(canvas, overlay, renderer) {
    this.canvas = canvas;
    this.overlay = overlay;
    this.renderer = (renderer !== "2d" && WebGLRenderer.for(canvas, renderer === "webgl")) || new PlainRenderer(canvas);
    this.camera = { x: 0, y: 0, zoom: 1 }; // zoom 1 shows the whole universe
    this.grid = [1, 1];
    this.torus = true;
    this.radius = 3;
    this.tool = "move";
    this.pointer = null; // in CSS pixels
    this.cursor = null; // a cell
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    for (const canvas of [this.canvas, this.overlay]) {
      canvas.width = Math.max(1, Math.round(this.canvas.clientWidth * ratio));
      canvas.height = Math.max(1, Math.round(this.canvas.clientHeight * ratio));
    }
    this.draw();
  }

  show(frame, palette) {
    if (frame.grid[0] !== this.grid[0] || frame.grid[1] !== this.grid[1]) {
      this.grid = frame.grid;
      this.fit();
    }
    this.renderer.show(frame, palette);
    this.draw();
  }

  // CSS pixels a cell.
  get scale() {
    const [height, width] = this.grid;
    return this.camera.zoom * Math.min(this.canvas.clientWidth / width, this.canvas.clientHeight / height);
  }

  fit() {
    this.camera = { x: this.grid[1] / 2, y: this.grid[0] / 2, zoom: 1 };
    this.draw();
  }

  // By a factor; what lies at (x, y), in CSS pixels, stays there.
  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const [cellX, cellY] = this.place(x, y);
    const most = (MOST_SCALE * this.camera.zoom) / this.scale;
    this.camera.zoom = Math.max(0.25, Math.min(Math.max(1, most), this.camera.zoom * factor));
    const [nowX, nowY] = this.place(x, y);
    this.move(cellX - nowX, cellY - nowY);
  }

  move(cellsX, cellsY) {
    const [height, width] = this.grid;
    const bound = (value, size) =>
      this.torus ? ((value % size) + size) % size : Math.max(0, Math.min(size, value));
    this.camera.x = bound(this.camera.x + cellsX, width);
    this.camera.y = bound(this.camera.y + cellsY, height);
    this.draw();
  }

  // The cell coordinates at a point of the canvas.
  place(x, y) {
    const { scale, camera, canvas } = this;
    return [(x - canvas.clientWidth / 2) / scale + camera.x, (y - canvas.clientHeight / 2) / scale + camera.y];
  }

  moveCursor(columns, rows) {
    const [height, width] = this.grid;
    const [x, y] = this.cursor ?? [Math.floor(this.camera.x), Math.floor(this.camera.y)];
    this.cursor = [(x + columns + width) % width, (y + rows + height) % height];
    this.draw();
  }

  draw() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    this.due = false;
    const ratio = devicePixelRatio || 1;
    this.renderer.draw({ ...this.camera, scale: this.scale * ratio }, this.torus);
    this.drawMarks(ratio);
  }

  // The brush and the cursor. A canvas that is touched is composited anew, so that an empty one is left alone.
  drawMarks(ratio) {
    const hasBrush = this.pointer && this.tool !== "move";
    if (!hasBrush && !this.cursor && !this.isMarked) return;
    this.isMarked = hasBrush || this.cursor;
    const context = this.overlay.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.overlay.width, this.overlay.height);
    if (hasBrush) {
      ring(context, ...this.pointer, Math.max(3, (this.radius + 0.5) * this.scale));
    }
    if (this.cursor) {
      const x = (this.cursor[0] - this.camera.x) * this.scale + this.canvas.clientWidth / 2;
      const y = (this.cursor[1] - this.camera.y) * this.scale + this.canvas.clientHeight / 2;
      const size = Math.max(this.scale, 4);
      for (const [colour, width] of [["#000", 4], ["#fff", 2]]) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.strokeRect(x, y, size, size);
      }
    }
  }
}

function ring(context, x, y, radius) {
  for (const [colour, width] of [["#000a", 3], ["#fff", 1.5]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.stroke();
  }
}

// Pointers: one moves the field or draws with the brush, two zoom; stroke(points) is given cells.
export function listenToPointers(field, stroke) {
  const { canvas } = field;
  const down = new Map();
  let last = null;
  const where = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const cell = (point) => field.place(...point).map(Math.floor);

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 1) return;
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, where(event));
    last = cell(where(event));
    if (down.size === 1 && field.tool !== "move" && event.button === 0) stroke([last]);
    else canvas.classList.add("moving");
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = where(event);
    field.pointer = event.pointerType === "touch" && !down.size ? null : now;
    const before = down.get(event.pointerId);
    if (before && down.size === 2) {
      const other = [...down].find(([id]) => id !== event.pointerId)[1];
      const distance = (a, b) => Math.max(8, Math.hypot(a[0] - b[0], a[1] - b[1]));
      field.zoom(distance(now, other) / distance(before, other), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      field.move((before[0] - now[0]) / (2 * field.scale), (before[1] - now[1]) / (2 * field.scale));
    } else if (before && field.tool !== "move" && event.buttons & 1) {
      const next = cell(now);
      if (next[0] !== last[0] || next[1] !== last[1]) stroke(between(last, next, field.radius));
      last = next;
    } else if (before) {
      field.move((before[0] - now[0]) / field.scale, (before[1] - now[1]) / field.scale);
    }
    if (before) down.set(event.pointerId, now);
    field.draw();
  });
  const up = (event) => {
    down.delete(event.pointerId);
    if (!down.size) canvas.classList.remove("moving");
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => {
    field.pointer = null;
    field.draw();
  });
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      field.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...where(event));
    },
    { passive: false },
  );
}

// Cells along a line, close enough that disks around them leave no gap.
function between(start, end, radius) {
  const length = Math.hypot(end[0] - start[0], end[1] - start[1]);
  const count = Math.min(256, Math.ceil(length / Math.max(1, radius / 2)));
  return Array.from({ length: count }, (_, i) => {
    const part = (i + 1) / count;
    return [0, 1].map((axis) => Math.round(start[axis] + part * (end[axis] - start[axis])));
  });
}
