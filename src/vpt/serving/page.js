"use strict";
const byId = id => document.getElementById(id);
const createElement = (tag, text, className) =>
  Object.assign(document.createElement(tag), {textContent: text ?? "", className: className ?? ""});
let tasks = [];

async function ask(path, options = {}) {
  const token = byId("token").value.trim();
  const response = await fetch(path, token ? {...options, headers: {Authorization: `Bearer ${token}`}} : options);
  if (response.status === 401) {
    byId("token").type = "password";
    byId("login").hidden = false;
  }
  const values = await response.json();
  if (!response.ok) throw new Error(values.error);
  return values;
}

function filterTasks() {
  const pattern = byId("filter").value.toLowerCase(), previous = byId("task").value;
  const matches = tasks.filter(task => task.name.toLowerCase().includes(pattern));
  byId("task").replaceChildren(...matches.map(task => new Option(task.name)));
  if (matches.some(task => task.name === previous)) byId("task").value = previous;
  byId("images").disabled = !matches.length;
  describeTask();
}

async function describeTask() {
  const name = byId("task").value, note = byId("about");
  note.className = name ? "note" : "note bad";
  if (!name) { note.textContent = `No task name contains "${byId("filter").value}". Change the filter.`; return; }
  try {
    const task = await ask(`tasks/${encodeURIComponent(name)}`);
    const classes = task.classes.slice(0, 12).join(", ") + (task.classes.length > 12 ? ", ..." : "");
    const described = `${task.kind}, ${task.classes.length} classes: ${classes}`;
    if (name === byId("task").value) note.textContent =
      `${task.label_kind === "regression" ? `regression: ${classes}` : described}; ${task.method} on ${task.backbone}`;
  } catch (error) {
    note.className = "note bad";
    note.textContent = `The task cannot be read: ${error.message}`;
  }
}

function predictionRows(predictions) {
  const rows = createElement("dl");
  for (const {class: name, probability, fraction = probability, color} of predictions) {
    const percent = (100 * fraction).toFixed(1);
    const bar = createElement("span", "", "bar"), cell = createElement("dd", "", "track"), term = createElement("dt", name);
    bar.style.width = `${percent}%`;  // CSS takes no space before the unit
    bar.dataset.value = percent;
    cell.append(bar);
    if (color) {
      const swatch = createElement("span", "", "swatch");
      swatch.style.background = color;
      term.prepend(swatch);
    }
    rows.append(term, cell, createElement("dd", `${percent} %`));
  }
  return rows;
}

function formatNumber(value) {  // four digits, and at least the whole number
  return Math.abs(value) < 1000 ? value.toPrecision(4) : value.toFixed(0);
}

async function predict(file) {
  const task = byId("task").value, article = createElement("article", "", "small"), image = createElement("img");
  image.src = URL.createObjectURL(file);
  image.alt = file.name;
  const note = createElement("p", `${file.name}, ${task}: ...`, "note");
  article.append(image, note);
  byId("predictions").prepend(article);
  try {
    const prediction = await ask(`predict/${encodeURIComponent(task)}`, {method: "POST", body: file});
    if (prediction.overlay) {
      URL.revokeObjectURL(image.src);
      image.src = prediction.overlay;
      article.className = "";
    }
    const heading = prediction.label ?? (prediction.labels?.length === 0 ? "no label" : "");
    if (heading) note.before(createElement("p", heading));
    const {labels, top, classes} = prediction;
    note.before(predictionRows(labels?.length ? labels : top ?? classes ?? []));
    note.textContent = `${file.name}, ${task}${"value" in prediction ? `: ${formatNumber(prediction.value)}` : ""}`;
    article.dataset.done = "yes";
  } catch (error) {
    note.textContent = `${file.name}: ${error.message}`;
    note.className = "note bad";
    article.dataset.done = "no";
  }
}

function predictAll(files) {
  if (byId("task").value) [...files].forEach(predict);
}

async function listTasks() {
  try {
    tasks = await ask("tasks");
    filterTasks();
  } catch (error) {
    byId("about").className = "note bad";
    byId("about").textContent = `The tasks cannot be read: ${error.message}`;
  }
}

const drop = byId("drop");
byId("token").addEventListener("change", listTasks);
byId("filter").addEventListener("input", filterTasks);
byId("task").addEventListener("change", describeTask);
byId("images").addEventListener("change", event => { predictAll(event.target.files); event.target.value = ""; });
for (const type of ["dragenter", "dragover", "dragleave", "drop"]) drop.addEventListener(type, event => {
  event.preventDefault();
  drop.className = type === "dragenter" || type === "dragover" ? "over" : "";
});
drop.addEventListener("drop", event => predictAll(event.dataTransfer.files));
listTasks();
