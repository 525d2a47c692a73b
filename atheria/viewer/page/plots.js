// Observables over steps: small plots, each with its present value.

const NAMES = {
  energy: "energy",
  occupancy: "occupancy",
  position_entropy: "position entropy",
  ipr: "IPR",
  radius_of_gyration: "radius of gyration",
};
const MOST_POINTS = 512;

export class Plots {
  constructor(parent) {
    this.points = [];
    this.every = 1;
    this.plots = Object.entries(NAMES).map(([key, name]) => {
      const figure = document.createElement("figure");
      figure.innerHTML = `<figcaption><span></span><output></output></figcaption><canvas role="img"></canvas>`;
      figure.querySelector("span").textContent = name;
      parent.append(figure);
      return { key, name, value: figure.querySelector("output"), canvas: figure.querySelector("canvas") };
    });
    this.due = false;
    new ResizeObserver(() => this.redraw()).observe(parent);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  restart(points = []) {
    this.points = points.slice();
    this.every = 1;
    this.redraw();
  }

  add(point) {
    const last = this.points.at(-1);
    if (point.step === undefined || (last && point.step === last.step)) return;
    if (last && point.step < last.step) return this.restart([point]);
    if (last && point.step < last.step + this.every) {
      this.newest = point;
    } else {
      this.points.push(point);
      this.newest = undefined;
    }
    if (this.points.length > MOST_POINTS) {
      this.points = this.points.filter((_, index) => index % 2 === 0);
      this.every = Math.max(1, this.points.at(-1).step - this.points.at(-2).step);
    }
    this.redraw();
  }

  redraw() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      const points = this.newest ? [...this.points, this.newest] : this.points;
      for (const plot of this.plots) draw(plot, points);
    });
  }
}

function draw({ key, name, value, canvas }, points) {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (!width || !height) return;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const style = getComputedStyle(canvas);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const values = points.map((point) => point[key]).filter(Number.isFinite);
  if (!values.length) {
    value.textContent = "–";
    return;
  }
  let low = Math.min(...values);
  let high = Math.max(...values);
  value.textContent = short(values.at(-1));
  canvas.setAttribute("aria-label", `${name}: ${short(values.at(-1))}, between ${short(low)} and ${short(high)}`);
  const middle = (low + high) / 2;
  const least = 1e-3 * Math.max(Math.abs(middle), 1e-9); // rounding is not blown up to a curve
  if (high - low < least) [low, high] = [middle - least / 2, middle + least / 2];
  const first = points[0].step;
  const span = Math.max(1, points.at(-1).step - first);
  const [left, top, bottom] = [2, 3, 3];
  context.font = `10px ${style.fontFamily}`;
  const labels = [high, low].map(short);
  const right = Math.max(...labels.map((label) => context.measureText(label).width)) + 8; // no curve behind them
  const x = (step) => left + ((step - first) / span) * (width - left - right);
  const y = (number) => top + (1 - (number - low) / (high - low)) * (height - top - bottom);
  const line = new Path2D();
  points = points.filter((point) => Number.isFinite(point[key]));
  points.forEach((point, index) => line[index ? "lineTo" : "moveTo"](x(point.step), y(point[key])));
  const area = new Path2D(line);
  area.lineTo(x(points.at(-1).step), height);
  area.lineTo(x(first), height);
  context.fillStyle = style.getPropertyValue("--accent-soft");
  context.fill(area);
  context.strokeStyle = style.getPropertyValue("--accent");
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  context.stroke(line);
  context.fillStyle = style.getPropertyValue("--faint");
  context.textAlign = "right";
  context.textBaseline = "top";
  context.fillText(labels[0], width - 3, 2);
  context.textBaseline = "bottom";
  context.fillText(labels[1], width - 3, height - 2);
}

export function short(number) {
  const size = Math.abs(number);
  if (number === 0) return "0";
  if (size >= 1e6 || size < 1e-3) return number.toExponential(2).replace("e+", "e");
  if (size >= 1000) return Math.round(number).toLocaleString("en");
  return number.toPrecision(3);
}
