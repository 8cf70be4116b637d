// Tasks on the graph of a shared backbone, which `vpt export --shared` writes, in onnxruntime-web.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

ort.env.wasm.numThreads = 1;  // more need headers of isolation from the host of the page
const BLOCKED = -1e4;  // the bias of a prompt that a task does not have
const MAX_ASPECT = 16;  // of a longer strip the middle is used

// Return the task of a safetensors file: the length of its header, the header as JSON, the tensors.
export function readTask(name, buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const {__metadata__: metadata, ...header} = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  if (!metadata?.["vpt-task"]) throw new Error(`${name} is not the file of a task`);
  const task = {name, metadata: JSON.parse(metadata["vpt-task"]), tensors: {}, shapes: {}};
  for (const [key, {shape, data_offsets: [start, end]}] of Object.entries(header)) {
    task.tensors[key] = new Float32Array(buffer.slice(8 + length + start, 8 + length + end));
    task.shapes[key] = shape;
  }
  if ("head.1.weight" in header) throw new Error(`${name}: heads of several layers are not supported here`);
  return task;
}

// Pillow's resizing with antialiasing, of rows (rows, columns) to the transposed (size, rows).
const FILTERS = {
  bilinear: [1, x => Math.max(0, 1 - x)],
  bicubic: [2, x => x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-.5 * x + 2.5) * x - 4) * x + 2 : 0],
};
function resample(plane, rows, columns, size, [support, weigh]) {
  const out = new Uint8ClampedArray(size * rows), scale = columns / size, stretch = Math.max(1, scale);
  for (let place = 0; place < size; place++) {
    const center = (place + .5) * scale, reach = support * stretch, weights = [];
    const first = Math.max(0, Math.floor(center - reach + .5));
    const end = Math.min(columns, Math.floor(center + reach + .5));
    for (let at = first; at < end; at++) weights.push(weigh(Math.abs(at - center + .5) / stretch));
    const total = weights.reduce((one, other) => one + other);
    for (let row = 0; row < rows; row++)
      out[place * rows + row] = weights.reduce((sum, w, at) => sum + w * plane[row * columns + first + at], 0) / total;
  }
  return out;
}

function roundHalfEven(value) {  // as Python rounds
  return Math.abs(value % 1) === .5 ? 2 * Math.round(value / 2) : Math.round(value);
}

function preprocess(bitmap, {size, resize, interpolation, crop_fraction, mean, std}) {
  if (!(interpolation in FILTERS)) throw new Error(`${interpolation} interpolation is not supported here`);
  if (mean.length !== 3) throw new Error(`images of ${mean.length} channels are not supported here`);
  const side = roundHalfEven(size / crop_fraction), short = Math.min(bitmap.width, bitmap.height);
  const most = resize === "squash" ? Infinity : MAX_ASPECT * short;
  const [width, height] = [bitmap.width, bitmap.height].map(length => Math.min(length, most));
  const [newWidth, newHeight] = resize === "squash" ? [size, size]
    : [width, height].map(length => Math.floor(side * length / short));
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.fillStyle = "white";  // behind transparent pixels
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, Math.round((width - bitmap.width) / 2), Math.round((height - bitmap.height) / 2));
  const {data} = context.getImageData(0, 0, width, height), out = new Float32Array(3 * size * size);
  const top = roundHalfEven((newHeight - size) / 2), left = roundHalfEven((newWidth - size) / 2);
  for (let channel = 0; channel < 3; channel++) {
    const plane = Uint8ClampedArray.from({length: width * height}, (_, at) => data[4 * at + channel]);
    const wide = resample(plane, height, width, newWidth, FILTERS[interpolation]);
    const small = resample(wide, newWidth, height, newHeight, FILTERS[interpolation]);
    for (let y = 0; y < size; y++) for (let x = 0; x < size; x++)
      out[(channel * size + y) * size + x] =
        (small[(top + y) * newWidth + left + x] / 255 - mean[channel]) / std[channel];
  }
  return out;
}

// The tensors of all tasks as one, (tasks, rows, width), the rows of a smaller one filled up.
function stack(tensors, rows, width, fill = 0) {
  const out = new Float32Array(tensors.length * rows * width).fill(fill);
  tensors.forEach((tensor, index) => {
    const own = tensor.length / rows;
    for (let row = 0; row < rows; row++)
      out.set(tensor.subarray(row * own, (row + 1) * own), (index * rows + row) * width);
  });
  return out;
}

// Return the logits of an image for each task, from one pass.
export async function predict({session, fingerprint}, tasks, bitmap) {
  const foreign = tasks.find(task => task.metadata.fingerprint !== fingerprint);
  if (foreign) throw new Error(`${foreign.name} belongs to a backbone with other weights; export both from the same`);
  const [blocks, heads, , channels] = tasks[0].shapes.keys, features = tasks[0].shapes["head.0.weight"][1];
  const length = Math.max(...tasks.map(task => task.shapes.keys[2])), size = tasks[0].metadata.preprocessing.size;
  const classes = Math.max(...tasks.map(task => task.shapes["head.0.bias"][0])), count = tasks.length;
  const all = name => tasks.map(task => task.tensors[name]);
  const tensor = (data, ...shape) => new ort.Tensor("float32", data, [count, ...shape]);
  const images = tasks.map(task => preprocess(bitmap, task.metadata.preprocessing));
  const prompts = name => tensor(stack(all(name), blocks * heads, length * channels), blocks, heads, length, channels);
  const {logits} = await session.run({
    images: tensor(stack(images, 1, 3 * size * size), 3, size, size),
    keys: prompts("keys"),
    values: prompts("values"),
    bias: tensor(stack(all("bias"), blocks, length, BLOCKED), blocks, length),
    weight: tensor(stack(all("head.0.weight"), 1, classes * features), classes, features),
    head_bias: tensor(stack(all("head.0.bias"), 1, classes), classes),
  });
  return tasks.map((task, at) => logits.data.slice(at * classes, at * classes + task.shapes["head.0.bias"][0]));
}

// Return a prediction in words.
export function describe(logits, {classes, label_kind: kind}) {
  const percent = (value, index) => `${classes?.[index] ?? index} ${(100 * value).toFixed(1)} %`;
  if (kind.name === "regression") {  // four digits, and at least the whole number
    const value = logits[0] * kind.std + kind.mean;
    return Math.abs(value) < 1000 ? value.toPrecision(4) : value.toFixed(0);
  }
  if (kind.name === "multi_label") {
    const values = [...logits].map(value => 1 / (1 + Math.exp(-value))), limit = at => kind.thresholds?.[at] ?? .5;
    return values.map((value, at) => value >= limit(at) && percent(value, at)).filter(Boolean).join(", ") || "no label";
  }
  const largest = Math.max(...logits), powers = [...logits].map(v => Math.exp((v - largest) / (kind.temperature ?? 1)));
  const best = powers.indexOf(1);
  return percent(1 / powers.reduce((one, other) => one + other), best);
}

// Return the session of a graph and the fingerprint of its weights, which stands in the text at the end of the file.
export async function openGraph(bytes) {
  const end = new TextDecoder("latin1").decode(new Uint8Array(bytes).slice(-65536));
  const fingerprint = end.match(/"fingerprint": "([^"]+)"/)?.[1];
  if (!fingerprint) throw new Error("this is not the graph of a backbone that `vpt export --shared` writes");
  return {session: await ort.InferenceSession.create(bytes), fingerprint};
}
