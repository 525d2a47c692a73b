// The page: the field, the plots and the controls, each told what the server says, and telling it what is wanted.

import { Connection } from "./connection.js";
import { Field, listenToPointers } from "./field.js";
import { Film, save } from "./film.js";
import { describe, listenToKeys } from "./keys.js";
import { Plots, short } from "./plots.js";

const FRAMES_AHEAD = 2;
const SLOWEST = 1; // steps a second
const FASTEST = 5000;
const LEAST_LEVEL = 1e-4;
const PLAY = "M8 5v14l11-7z";
const PAUSE = "M7 5h3.5v14H7zM13.5 5H17v14h-3.5z";
const VIEWS = ["density", "phase", "component", "change"];

const get = (id) => document.getElementById(id);
const search = new URLSearchParams(location.search);
if (search.has("token")) history.replaceState(null, "", location.pathname); // a cookie holds it by now

const field = new Field(get("field"), get("overlay"), search.get("renderer"));
const plots = new Plots(get("plots"));
const film = new Film(get("field"));
const palettes = {};
const state = { playing: false, speed: null, universe: null, look: { view: "density", component: 0, part: "re" } };
let waiting = null; // the newest frame that is not drawn yet
let received = 0; // frames since the last credit
let drawn = 0;
let strokes = [];

// ---- what the server says

const connection = new Connection({
  opened() {
    say("");
    received = 0;
    connection.send({ do: "look", ...state.look });
    connection.send({ do: "frames", count: FRAMES_AHEAD });
    connection.send({ do: "laws" });
  },
  closed(reason, isFinal) {
    const why = reason || "the server does not answer";
    say(isFinal ? `Disconnected: ${why}. Reload the page.` : `Disconnected: ${why}. Trying again…`);
  },
  hello(message) {
    for (const [name, table] of Object.entries(message.palettes)) {
      palettes[name] = Uint8Array.from(atob(table), (letter) => letter.charCodeAt(0));
    }
    options(get("noise"), message.noises.filter((name) => name !== "none").map((name) => [name, name]));
    plots.restart(message.points);
    showBrush();
    showLegend();
  },
  universe(message) {
    const isAnother = state.universe && state.universe.number !== message.number;
    state.universe = message;
    field.torus = message.physics.boundary === "torus";
    const [height, width] = message.grid;
    const { computes, why } = message.engine;
    get("facts").textContent = `${message.law} · ${message.d_state} components · ${height} × ${width} · ${message.physics.boundary}`;
    get("law-facts").textContent = `${computes}; ` +
      `gamma ${message.physics.gamma}, epsilon ${message.physics.epsilon}, normalise ${message.physics.normalise}`;
    get("law-facts").title = why;
    options(get("component"), Array.from({ length: message.d_state }, (_, i) => [String(i), `ψ${subscript(i)}`]));
    state.look.component = Math.min(state.look.component, message.d_state - 1);
    get("component").value = String(state.look.component);
    get("law").value = message.choice;
    get("seed").value = message.seed;
    get("grid").value = height === width ? height : "";
    get("grid").placeholder = `${height}×${width}`;
    if (message.initial_state !== "file") get("kind").value = message.initial_state;
    const isNoisy = message.noise.name !== "none";
    press("noise-on", isNoisy);
    if (isNoisy) {
      get("noise").value = message.noise.name;
      get("level").value = levelPlace(message.noise.level);
      showLevel();
    }
    if (isAnother) announce(`${message.law}, ${height} by ${width} cells`);
  },
  status(message) {
    state.playing = message.playing;
    state.speed = message.steps_per_second;
    get("play-shape").setAttribute("d", state.playing ? PAUSE : PLAY);
    get("play").setAttribute("aria-label", state.playing ? "Pause" : "Play");
    press("full", state.speed === null);
    if (state.speed !== null) get("speed").value = speedPlace(state.speed);
    get("speed-text").textContent = state.speed === null ? "full rate" : `${short(state.speed)}/s`;
    say(message.fault ?? "");
  },
  fault(message) {
    say(message.text, true);
    if (state.universe) get("law").value = state.universe.choice;
  },
  laws(message) {
    const groups = Map.groupBy?.(message.laws, (law) => law.group) ?? group(message.laws);
    get("law").replaceChildren(
      ...[...groups].map(([label, laws]) => {
        const list = document.createElement("optgroup");
        list.label = label;
        options(list, laws.map((law) => [law.choice, law.text]));
        return list;
      }),
    );
    if (state.universe) get("law").value = state.universe.choice;
    get("law").disabled = false;
  },
  rates(message) {
    get("rate-server").textContent = `${message.sent.toFixed(0)}/s`;
  },
  frame(frame) {
    received += 1;
    if (!waiting) requestAnimationFrame(drawFrame);
    waiting = frame;
  },
});

function drawFrame() {
  const frame = waiting;
  waiting = null;
  field.show(frame, palettes[frame.view]);
  field.drawNow();
  drawn += 1;
  connection.send({ do: "frames", count: received });
  received = 0;
  get("step-count").textContent = frame.step.toLocaleString("en");
  get("rate-engine").textContent = `${frame.rate < 10 ? frame.rate.toFixed(1) : Math.round(frame.rate).toLocaleString("en")}/s`;
  plots.add(frame.observed);
  get("legend-high").textContent = frame.view === "phase" ? "π" : short(brightest(frame));
  get("legend-low").textContent = { phase: "−π", component: `−${short(frame.brightest)}` }[frame.view] ?? "0";
  document.body.dataset.step = frame.step;
  document.body.dataset.view = frame.view;
}

// Densities are squares of the norms that the bytes are.
function brightest(frame) {
  return frame.view === "density" ? frame.brightest ** 2 : frame.brightest;
}

let counted = performance.now();
setInterval(() => {
  const now = performance.now();
  get("rate-browser").textContent = `${((1000 * drawn) / (now - counted)).toFixed(0)}/s`;
  document.body.dataset.drawn = Number(document.body.dataset.drawn ?? 0) + drawn;
  [drawn, counted] = [0, now];
}, 1000);

// ---- what is wanted

function look(changes) {
  Object.assign(state.look, changes);
  for (const button of document.querySelectorAll("[data-view]")) {
    if (button === document.body) continue;
    button.setAttribute("aria-checked", String(button.dataset.view === state.look.view));
    button.tabIndex = button.dataset.view === state.look.view ? 0 : -1;
  }
  get("component-choice").hidden = state.look.view !== "component";
  get("component").value = String(state.look.component);
  get("part").textContent = state.look.part === "re" ? "Re" : "Im";
  connection.send({ do: "look", ...state.look });
  showLegend();
  announce(`view: ${state.look.view}`);
}

function nextView(by) {
  look({ view: VIEWS[(VIEWS.indexOf(state.look.view) + by + VIEWS.length) % VIEWS.length] });
}

function use(tool) {
  field.tool = tool;
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  }
  get("field").classList.toggle("brush", tool !== "move");
  field.draw();
  announce(`tool: ${tool}`);
}

function stroke(points) {
  if (!strokes.length) {
    requestAnimationFrame(() => {
      const all = strokes;
      strokes = [];
      for (let at = 0; at < all.length; at += 256) brush(all.slice(at, at + 256));
    });
  }
  strokes.push(...points);
}

function brush(points) {
  const radius = Number(get("radius").value);
  if (field.tool === "erase") return connection.send({ do: "erase", points, radius });
  const phase = get("random").checked ? null : (Number(get("phase").value) * Math.PI) / 180;
  connection.send({ do: "paint", points, radius, norm: Number(get("norm").value) / 10, phase });
}

const togglePlay = () => connection.send({ do: "play", on: !state.playing });
const step = (steps) => connection.send({ do: "step", steps });
const reset = () => connection.send({ do: "reset" });

function setSpeed(stepsPerSecond) {
  connection.send({ do: "speed", steps_per_second: stepsPerSecond });
}

function changeSpeed(by) {
  const place = state.speed === null ? 100 : Number(get("speed").value);
  setSpeed(speedAt(Math.max(0, Math.min(100, place + by))));
}

const toggleFull = () => setSpeed(state.speed === null ? speedAt(Number(get("speed").value)) : null);

function inject(on) {
  connection.send({ do: "noise", name: on ? get("noise").value : "none", level: on ? level() : 0 });
}

const isNoisy = () => get("noise-on").getAttribute("aria-pressed") === "true";

function start(changes = {}) {
  const side = Number(get("grid").value);
  const grid = get("grid").value === "" ? null : [side, side];
  if (grid && !(Number.isInteger(side) && side >= 1 && side <= 4096)) return say("The grid must be 1 to 4096 cells a side.", true);
  const written = get("seed").value.trim();
  if (!/^\d{1,15}$/.test(written)) return say("The seed must be a whole number of at most 15 digits.", true);
  connection.send({ do: "reset", kind: get("kind").value, grid, seed: Number(written), ...changes });
}

const anotherSeed = () => start({ seed: Math.floor(Math.random() * 1e6) });

async function toggleFilm() {
  if (film.isRunning) {
    const size = await film.stop(fileName());
    press("film", false);
    get("film").textContent = "record film";
    get("film-text").textContent = `saved a film of ${(size / 1e6).toFixed(1)} MB`;
  } else if (Film.isPossible) {
    film.start();
    press("film", true);
    get("film").textContent = "stop and save";
    get("film-text").textContent = "recording the field as it is shown";
  } else {
    say("This browser cannot record a canvas.", true);
  }
}

function savePicture() {
  field.drawNow(); // a WebGL canvas is empty once it has been shown
  get("field").toBlob((blob) => save(blob, `${fileName()}.png`));
}

const fileName = () => `atheria-${state.universe?.law ?? "field"}-${document.body.dataset.step ?? 0}`;

// ---- controls

const speedAt = (place) => Number((SLOWEST * (FASTEST / SLOWEST) ** (place / 100)).toPrecision(2));
const speedPlace = (speed) => Math.round((100 * Math.log(speed / SLOWEST)) / Math.log(FASTEST / SLOWEST));
const levelAt = (place) => Number((LEAST_LEVEL ** (1 - place / 100)).toPrecision(2));
const levelPlace = (value) => Math.round(100 * (1 - Math.log(value) / Math.log(LEAST_LEVEL)));
const level = () => levelAt(Number(get("level").value));

function showLevel() {
  get("level-text").textContent = String(level());
}

function showBrush() {
  field.radius = Number(get("radius").value);
  get("radius-text").textContent = get("radius").value;
  get("norm-text").textContent = (Number(get("norm").value) / 10).toFixed(1);
  get("phase-text").textContent = `${get("phase").value}°`;
  get("phase").disabled = get("random").checked;
  if (palettes.phase) {
    const at = 3 * ((Math.round((Number(get("phase").value) / 360) * 256) + 128) % 256);
    const context = get("swatch").getContext("2d");
    context.fillStyle = get("random").checked ? "#8888" : `rgb(${palettes.phase.slice(at, at + 3).join(" ")})`;
    context.clearRect(0, 0, 1, 1);
    context.fillRect(0, 0, 1, 1);
  }
  field.draw();
}

function showLegend() {
  const palette = palettes[state.look.view];
  if (!palette) return;
  const context = get("legend").getContext("2d");
  const image = context.createImageData(256, 1);
  for (let i = 0; i < 256; i++) image.data.set([...palette.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  context.putImageData(image, 0, 0);
  const { component, part } = state.look;
  const names = {
    density: "density ρ, √",
    phase: "phase of Σψ",
    component: `${part === "re" ? "Re" : "Im"} ψ${subscript(component)}`,
    change: "‖Δψ‖",
  };
  get("legend-name").textContent = names[state.look.view];
}

function changeRadius(by) {
  get("radius").value = Number(get("radius").value) + by;
  showBrush();
}

const press = (id, on) => get(id).setAttribute("aria-pressed", String(on));
const subscript = (number) => [...String(number)].map((digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]).join("");

function group(laws) {
  const groups = new Map();
  for (const law of laws) groups.set(law.group, [...(groups.get(law.group) ?? []), law]);
  return groups;
}

function options(parent, pairs) {
  parent.replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
}

let silence;
function say(text, goes = false) {
  clearTimeout(silence);
  get("banner").hidden = !text;
  get("banner").textContent = text;
  if (goes) silence = setTimeout(() => say(""), 8000);
}

function announce(text) {
  get("announcer").textContent = text;
}

const on = (id, event, action) => get(id).addEventListener(event, action);
on("play", "click", togglePlay);
on("step", "click", () => step(1));
on("reset", "click", reset);
on("full", "click", toggleFull);
on("speed", "input", () => setSpeed(speedAt(Number(get("speed").value))));
on("zoom-in", "click", () => field.zoom(1.5));
on("zoom-out", "click", () => field.zoom(1 / 1.5));
on("zoom-fit", "click", () => field.fit());
on("component", "change", () => look({ component: Number(get("component").value) }));
on("part", "click", () => look({ part: state.look.part === "re" ? "im" : "re" }));
on("noise-on", "click", () => inject(!isNoisy()));
on("noise", "change", () => isNoisy() && inject(true));
on("level", "input", () => {
  showLevel();
  if (isNoisy()) inject(true);
});
on("law", "change", () => {
  connection.send({ do: "law", choice: get("law").value });
  get("law").disabled = true;
  announce("loading the law");
  setTimeout(() => (get("law").disabled = false), 2000);
});
on("laws", "click", () => connection.send({ do: "laws" }));
on("start", "click", () => start());
on("dice", "click", anotherSeed);
on("film", "click", toggleFilm);
on("picture", "click", savePicture);
on("help-open", "click", () => get("help").showModal());
for (const id of ["radius", "norm", "phase", "random"]) on(id, "input", showBrush);
for (const button of document.querySelectorAll("button[data-view]")) {
  button.addEventListener("click", () => look({ view: button.dataset.view }));
  button.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    nextView(by);
    document.querySelector('[role="radio"][aria-checked="true"]').focus();
  });
}
for (const button of document.querySelectorAll("[data-tool]")) {
  button.addEventListener("click", () => use(button.dataset.tool));
}
on("field", "keydown", (event) => {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.shiftKey && way) field.moveCursor(...way);
  else if (event.key === "Enter" && field.tool !== "move") stroke([field.cursor ?? field.place(0, 0).map(Math.floor)]);
  else return;
  event.preventDefault();
});
on("field", "blur", () => {
  field.cursor = null;
  field.draw();
});
listenToPointers(field, stroke);

const pan = (x, y) => () => field.move((40 * x) / field.scale, (40 * y) / field.scale);
const KEYS = [
  [[" "], "play or pause", togglePlay],
  [["."], "one step", () => step(1)],
  [[","], "ten steps", () => step(10)],
  [["j"], "slower", () => changeSpeed(-5)],
  [["k"], "faster", () => changeSpeed(5)],
  [["m"], "full rate on or off", toggleFull],
  [["r"], "start anew", reset],
  [["x"], "start with another seed", anotherSeed],
  [["h"], "move the field", () => use("move")],
  [["b"], "paint matter", () => use("paint")],
  [["e"], "erase", () => use("erase")],
  [["["], "smaller brush", () => changeRadius(-1)],
  [["]"], "larger brush", () => changeRadius(1)],
  [["n"], "noise on or off", () => inject(!isNoisy())],
  [["v"], "next view", () => nextView(1)],
  ...VIEWS.map((view, i) => [[String(i + 1)], view, () => look({ view })]),
  [["c"], "next component", () => {
    look({ view: "component", component: (state.look.component + 1) % (state.universe?.d_state ?? 1) });
  }],
  [["p"], "real or imaginary part", () => look({ part: state.look.part === "re" ? "im" : "re" })],
  [["+", "="], "zoom in", () => field.zoom(1.5)],
  [["-"], "zoom out", () => field.zoom(1 / 1.5)],
  [["0"], "the whole universe", () => field.fit()],
  [["ArrowLeft"], "move left", pan(-1, 0)],
  [["ArrowRight"], "move right", pan(1, 0)],
  [["ArrowUp"], "move up", pan(0, -1)],
  [["ArrowDown"], "move down", pan(0, 1)],
  [["l"], "choose a law", () => get("law").focus()],
  [["o"], "record a film, or save it", toggleFilm],
  [["g"], "save a picture", savePicture],
  [["?"], "this help", () => get("help").showModal()],
];
listenToKeys(KEYS);
describe(KEYS, get("keys"));
showLevel();
document.body.dataset.renderer = field.renderer.name;
