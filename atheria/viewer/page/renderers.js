// Bytes to colours on a canvas: by WebGL2, or by a 2D context where there is none.

// What both are given to draw: where the field lies, in device pixels.
//   camera: {x, y} the cell coordinate in the middle, scale: device pixels a cell; torus: whether it repeats.

const VERTICES = `#version 300 es
void main() {
  gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0);
}`;

const COLOURS = `#version 300 es
precision highp float;
precision highp int;
uniform sampler2D first, second, palette;
uniform vec2 size, centre, grid;
uniform float scale, every;
uniform bool torus, two;
out vec4 colour;

vec3 at(vec2 place) {
  vec2 cell = floor(place);
  bool beyond = any(lessThan(cell, vec2(0.0))) || any(greaterThanEqual(cell, grid));
  if (beyond && !torus) return vec3(0.11, 0.11, 0.14);
  cell = mod(cell, grid);
  ivec2 texel = ivec2(floor(cell / every));
  vec3 found = texelFetch(palette, ivec2(int(texelFetch(first, texel, 0).r * 255.0 + 0.5), 0), 0).rgb;
  if (two) found *= texelFetch(second, texel, 0).r;
  return beyond ? 0.5 * found : found;
}

void main() {
  vec2 place = (vec2(gl_FragCoord.x, size.y - gl_FragCoord.y) - 0.5 * size) / scale + centre;
  int samples = int(clamp(ceil(1.0 / scale), 1.0, 4.0));
  vec3 sum = vec3(0.0);
  for (int i = 0; i < samples; i++) {
    for (int j = 0; j < samples; j++) {
      sum += at(place + (vec2(i, j) + 0.5 - 0.5 * float(samples)) / (float(samples) * scale));
    }
  }
  colour = vec4(sum / float(samples * samples), 1.0);
}`;

export class WebGLRenderer {
  // Null where there is none, or, unless it is wanted nevertheless, only one that the processor emulates:
  // a 2D context is faster then.
  static for(canvas, nevertheless) {
    if (!nevertheless && isEmulated()) return null;
    const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false });
    return gl && new WebGLRenderer(gl);
  }

  constructor(gl) {
    this.name = "WebGL2";
    this.gl = gl;
    gl.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    gl.canvas.addEventListener("webglcontextrestored", () => this.prepare());
    this.prepare();
  }

  prepare() {
    const gl = this.gl;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTICES], [gl.FRAGMENT_SHADER, COLOURS]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    this.at = (name) => gl.getUniformLocation(program, name);
    this.textures = ["first", "second", "palette"].map((name, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
      for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) {
        gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
      }
      gl.uniform1i(this.at(name), unit);
      return name;
    });
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    if (this.frame) this.show(this.frame, this.palette);
  }

  show(frame, palette) {
    const gl = this.gl;
    this.frame = frame;
    if (this.palette !== palette || !this.filled) {
      gl.activeTexture(gl.TEXTURE2);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB8, 256, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, palette);
      this.palette = palette;
      this.filled = true;
    }
    frame.planes.forEach((plane, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.R8, frame.width, frame.height, 0, gl.RED, gl.UNSIGNED_BYTE, plane);
    });
  }

  draw(camera, torus) {
    const { gl, frame } = this;
    if (!frame) return;
    const { width, height } = gl.canvas;
    gl.viewport(0, 0, width, height);
    gl.uniform2f(this.at("size"), width, height);
    gl.uniform2f(this.at("centre"), camera.x, camera.y);
    gl.uniform2f(this.at("grid"), frame.grid[1], frame.grid[0]);
    gl.uniform1f(this.at("scale"), camera.scale);
    gl.uniform1f(this.at("every"), Math.ceil(frame.grid[1] / frame.width));
    gl.uniform1i(this.at("torus"), torus);
    gl.uniform1i(this.at("two"), frame.planes.length === 2);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }
}

// A canvas keeps the first kind of context that it is asked for, so that another one is tried.
function isEmulated() {
  const gl = document.createElement("canvas").getContext("webgl2", { failIfMajorPerformanceCaveat: true });
  if (!gl) return true;
  const names = gl.getExtension("WEBGL_debug_renderer_info");
  const name = gl.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|software/i.test(name);
}

export class PlainRenderer {
  constructor(canvas) {
    this.name = "2D canvas";
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.cells = document.createElement("canvas");
  }

  show(frame, palette) {
    this.frame = frame;
    const { width, height, planes } = frame;
    const context = this.cells.getContext("2d", { alpha: false });
    if (this.cells.width !== width || this.cells.height !== height || !this.image) {
      Object.assign(this.cells, { width, height });
      this.image = context.createImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    const { pixels } = this;
    const [first, second] = planes;
    if (second) {
      for (let i = 0; i < pixels.length; i++) {
        const [at, bright] = [3 * first[i], second[i] + 1];
        const blue = (palette[at + 2] * bright) >> 8;
        const green = (palette[at + 1] * bright) >> 8;
        pixels[i] = 0xff000000 | (blue << 16) | (green << 8) | ((palette[at] * bright) >> 8);
      }
    } else {
      const colours = Uint32Array.from({ length: 256 }, (_, i) => {
        return 0xff000000 | (palette[3 * i + 2] << 16) | (palette[3 * i + 1] << 8) | palette[3 * i];
      });
      for (let i = 0; i < pixels.length; i++) pixels[i] = colours[first[i]];
    }
    context.putImageData(this.image, 0, 0);
  }

  draw(camera, torus) {
    if (!this.frame) return;
    const { context, canvas } = this;
    const [height, width] = this.frame.grid.map((side) => side * camera.scale);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#1c1c24";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = camera.scale < 1;
    const left = canvas.width / 2 - camera.x * camera.scale;
    const top = canvas.height / 2 - camera.y * camera.scale;
    const copies = (start, size, end) => {
      if (!torus) return [0];
      const first = -Math.ceil(start / size);
      return Array.from({ length: Math.ceil((end - start) / size) - first }, (_, i) => first + i);
    };
    for (const column of copies(left, width, canvas.width)) {
      for (const row of copies(top, height, canvas.height)) {
        context.globalAlpha = column || row ? 0.5 : 1;
        context.drawImage(this.cells, left + column * width, top + row * height, width, height);
      }
    }
    context.globalAlpha = 1;
  }
}
