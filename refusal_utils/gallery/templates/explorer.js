"use strict";
const $ = (id) => document.getElementById(id);
const SIDES = ["A", "B"];
const chosen = { A: {}, B: {} };
const dials = {}; // direction: strength in gaps that its dial asks for
const SIZE = 430, LEFT = 70, TOP = 20; // the square of the plot
const x = (rate) => LEFT + rate * SIZE;
const y = (rate) => TOP + (1 - rate) * SIZE;
const two = (value) => (value === null ? "none" : value.toFixed(2));
const kind = (name) => name.replace(/[0-9 ]+$/, "");
const look = (name) => known.looks[kind(name)] || [name, "#777777", "control"];
const title = (name) => (look(name)[2] === "control" ? name : look(name)[0]);

/* Text only ever becomes a text node or an attribute, so no prompt, response or name is read as markup. */
function make(tag, attributes = {}, ...children) {
  const isDrawn = ["path", "line", "circle", "text", "title", "g"].includes(tag);
  const node = isDrawn ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function direction(side, name = chosen[side].direction) {
  return records[chosen[side].model].directions[name];
}

/* The recorded strength nearest to what the dial asks for; the weaker one of two that are as near. */
function step(own, name) {
  const asked = dials[name] ?? 0;
  const order = own.gaps.map((gaps, at) => [Math.abs(gaps - asked), Math.abs(gaps), at]);
  return order.sort((one, other) => one[0] - other[0] || one[1] - other[1])[0][2];
}

function levels(names) {
  const all = SIDES.flatMap((side) => names.flatMap((name) => direction(side, name)?.gaps ?? []));
  return [...new Set([0, ...all])].sort((one, other) => one - other);
}

function allNames() {
  return [...new Set(SIDES.flatMap((side) => Object.keys(records[chosen[side].model].directions)))];
}

function dial(name) {
  const own = levels([name]), [, colour, cluster] = look(name);
  const input = make("input", { type: "range", min: 0, max: own.length - 1, step: 1, "data-direction": name });
  const shown = make("output");
  const sign = make("i", { style: `--colour:${colour}`, class: cluster === "cannot comply" ? "diamond" : "" });
  input.addEventListener("input", () => { dials[name] = own[input.value]; draw(); });
  const label = make("label", { class: "dial" }, make("span", {}, sign, title(name)), input, shown);
  label.refresh = () => {
    const asked = dials[name] ?? 0;
    input.value = own.reduce((best, gaps, at) => (Math.abs(gaps - asked) < Math.abs(own[best] - asked) ? at : best), 0);
    const used = SIDES.map((side) => direction(side, name)).map((each) => (each ? each.gaps[step(each, name)] : null));
    const same = chosen.A.model === chosen.B.model || used[0] === used[1];
    shown.textContent = same ? `${used[0]} gaps` : `A ${used[0] ?? "none"}, B ${used[1] ?? "none"}`;
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  return label;
}

function setUp() {
  for (const side of SIDES) {
    const names = Object.keys(records[chosen[side].model].directions);
    if (!names.includes(chosen[side].direction)) chosen[side].direction = names[0];
    const options = names.map((name) => make("option", { value: name }, title(name)));
    $(`direction-${side}`).replaceChildren(...options);
    $(`direction-${side}`).value = chosen[side].direction;
  }
  const isControl = (name) => look(name)[2] === "control" && name !== "pooled";
  $("dials").replaceChildren(...allNames().filter((name) => !isControl(name)).map(dial));
  $("controls").replaceChildren(...allNames().filter(isControl).map(dial));
  $("all").max = levels(allNames()).length - 1;
  draw();
}

function draw() {
  for (const label of document.querySelectorAll("#dials label, #controls label")) label.refresh();
  const all = levels(allNames()), used = new Set(allNames().map((name) => dials[name] ?? 0));
  $("all-value").textContent = used.size === 1 ? `${[...used][0]} gaps` : "mixed";
  $("all").value = all.indexOf([...used][0]);
  $("all").setAttribute("aria-valuetext", $("all-value").textContent);
  SIDES.forEach(summarise);
  plot();
  table("rates", known.categories, (own, at) => own.refused[at], (row, side) => records[chosen[side].model].n[row]);
  table("styles", known.styles, (own, at) => own.styles[at].map((n) => (own.refusals[at] ? n / own.refusals[at] : null)));
  responses();
}

function summarise(side) {
  const own = direction(side), at = step(own, chosen[side].direction);
  const range = (rate) => `${two(own[rate][at])} (${two(own[`${rate} low`][at])} to ${two(own[`${rate} high`][at])})`;
  const rates = own.RR[at] === null ? "no rates" : `RR ${range("RR")}, ORR ${range("ORR")}`;
  const broken = own.degenerate[at] > known.broken ? `, too much to lie on a curve` : "";
  $(`summary-${side}`).textContent =
    `At ${own.gaps[at]} gaps: ${rates}; broken text ${two(own.degenerate[at])}${broken}.`;
}

const isPoint = (own, at) => own.RR[at] !== null && own.ORR[at] !== null;

function axes() {
  const parts = [];
  for (const rate of [0, 0.25, 0.5, 0.75, 1]) {
    parts.push(make("line", { class: "grid", x1: x(rate), x2: x(rate), y1: y(0), y2: y(1) }));
    parts.push(make("line", { class: "grid", x1: x(0), x2: x(1), y1: y(rate), y2: y(rate) }));
    parts.push(make("text", { x: x(rate), y: y(0) + 22, "text-anchor": "middle" }, two(rate)));
    parts.push(make("text", { x: x(0) - 10, y: y(rate) + 4, "text-anchor": "end" }, two(rate)));
  }
  const across = "ORR: share of benign prompts refused", up = "RR: share of harmful prompts refused";
  parts.push(make("text", { x: x(0.5), y: y(0) + 52, "text-anchor": "middle" }, across));
  parts.push(make("text", { transform: `translate(18 ${y(0.5)}) rotate(-90)`, "text-anchor": "middle" }, up));
  return parts;
}

function mark(name, own, at, other) {
  const [, colour, cluster] = look(name), [left, top] = [x(own.ORR[at]), y(own.RR[at])];
  const shapes = {
    "content policy": `M${left - 5},${top}a5,5 0 1,0 10,0a5,5 0 1,0 -10,0`,
    "cannot comply": `M${left},${top - 6}l6,6l-6,6l-6,-6z`,
    control: `M${left - 4},${top - 4}l8,8m-8,0l8,-8`,
  };
  const text = `${title(name)}, ${own.gaps[at]} gaps: RR ${two(own.RR[at])}, ORR ${two(own.ORR[at])}`;
  const broken = own.degenerate[at] > known.broken ? "broken" : "";
  const attributes = { class: `mark ${other} ${broken}`, d: shapes[cluster], style: `--colour:${colour}`, "data-mark": name };
  return make("path", attributes, make("title", {}, text));
}

function curve(name, own, classes) {
  const intact = own.gaps.map((_, at) => at).filter((at) => isPoint(own, at) && own.degenerate[at] <= known.broken);
  const d = intact.map((at, n) => `${n ? "L" : "M"}${x(own.ORR[at])},${y(own.RR[at])}`).join("");
  return make("path", { class: `curve ${classes}`, d, style: `--colour:${look(name)[1]}` });
}

function picked(side) {
  const own = direction(side), at = step(own, chosen[side].direction);
  if (!isPoint(own, at)) return [];
  const [left, top] = [x(own.ORR[at]), y(own.RR[at])], isLeft = side === "A" && own.ORR[at] > 0.1;
  const below = (own.RR[at] > 0.9 ? 24 : -12) + (side === "A" && !isLeft ? -28 : 0); // clear of B and of the axis
  const tag = { class: `tag ${side}`, x: left + (isLeft ? -15 : 15), y: top + below, "text-anchor": isLeft ? "end" : "start" };
  const vertical = { x1: left, x2: left, y1: y(own["RR low"][at]), y2: y(own["RR high"][at]) };
  const horizontal = { x1: x(own["ORR low"][at]), x2: x(own["ORR high"][at]), y1: top, y2: top };
  return [
    make("line", { class: `chosen ${side}`, ...vertical }),
    make("line", { class: `chosen ${side}`, ...horizontal }),
    make("circle", { class: `chosen ${side}`, cx: left, cy: top, r: side === "A" ? 10 : 13 }),
    make("text", tag, side),
  ];
}

function plot() {
  const isTwo = chosen.A.model !== chosen.B.model, curves = [], marks = [];
  for (const side of isTwo ? SIDES : ["A"]) {
    const other = side === "B" ? "other" : "";
    for (const [name, own] of Object.entries(records[chosen[side].model].directions)) {
      const isPicked = SIDES.some((each) => chosen[each].direction === name && (!isTwo || each === side));
      if (look(name)[2] !== "control" || isPicked) curves.push(curve(name, own, `${other} ${isPicked ? "picked" : ""}`));
      const at = step(own, name);
      if (isPoint(own, at)) marks.push(mark(name, own, at, other));
    }
  }
  const text = SIDES.map((side) => `${side}: ${title(chosen[side].direction)}. ${$(`summary-${side}`).textContent}`);
  $("plot").setAttribute("aria-label", `Refusal rate against over-refusal rate. ${text.join(" ")}`);
  $("plot").replaceChildren(...axes(), ...curves, ...marks, ...SIDES.flatMap(picked));
}

function head(first) {
  const names = SIDES.map((side) => make("th", { scope: "col", class: side }, `${side}: ${title(chosen[side].direction)}`));
  return make("thead", {}, make("tr", {}, make("th", { scope: "col" }, first), ...names));
}

function fill(id, ...parts) {
  $(id).replaceChildren($(id).caption, ...parts);
}

function table(id, names, values, counts = null) {
  const own = SIDES.map((side) => values(direction(side), step(direction(side), chosen[side].direction)));
  const rows = names.map((name, row) => {
    const bars = SIDES.map((side, at) => {
      const share = own[at][row], n = counts ? ` (${counts(row, side)})` : "";
      const bar = make("span", { style: `width:${((share ?? 0) * 60).toFixed(1)}%` });
      return make("td", { class: `bar ${side}` }, bar, share === null ? "none" : two(share) + n);
    });
    return make("tr", {}, make("th", { scope: "row" }, name), ...bars);
  });
  fill(id, head(id === "rates" ? "Kind" : "Wording"), make("tbody", {}, ...rows));
}

function answer(side, prompt) {
  const record = records[chosen[side].model], own = direction(side), at = step(own, chosen[side].direction);
  const number = record.prompts.findIndex((each) => each[1] === prompt);
  if (number < 0 || own.responses[at][number] < 0) return make("td", {}, "not recorded for this model");
  const outcome = known.outcomes[own.outcomes[at][number]] ?? "not judged";
  const text = make("div", { class: "text", dir: "auto" }, record.texts[own.responses[at][number]]);
  if (text.textContent.length > 500) text.tabIndex = 0;
  return make("td", {}, make("div", { class: `outcome ${outcome}` }, outcome), text);
}

function responses() {
  const prompts = SIDES.flatMap((side) => records[chosen[side].model].prompts);
  const isBenign = ([category]) => category === known.categories.length - 1;
  $("harmful").hidden = prompts.every(isBenign);
  const shown = prompts.filter((each) => isBenign(each) || $("harmful").firstElementChild.checked);
  const count = (prompt) => shown.filter((each) => each[1] === prompt).length;
  const texts = [...new Set(shown.map((each) => each[1]))].sort((one, other) => count(other) - count(one));
  const rows = texts.map((prompt) => {
    const cell = make("th", { scope: "row" }, make("div", { class: "text", dir: "auto" }, prompt));
    return make("tr", {}, cell, ...SIDES.map((side) => answer(side, prompt)));
  });
  fill("responses", head("Prompt"), make("tbody", {}, ...rows));
}

/* Turn all dials to the middle of the positive strengths: at 0 all marks lie on one point. */
function turnDials() {
  const positive = levels(allNames()).filter((gaps) => gaps > 0);
  for (const name of allNames()) dials[name] = positive[positive.length >> 1] ?? 0;
}

function start() {
  const keys = Object.keys(known.models).filter((key) => records[key]);
  if (!keys.length) return;
  for (const side of SIDES) {
    chosen[side] = { model: keys[0] };
    $(`model-${side}`).replaceChildren(...keys.map((key) => make("option", { value: key }, known.models[key])));
    for (const what of ["model", "direction"]) {
      $(`${what}-${side}`).addEventListener("change", (event) => {
        chosen[side][what] = event.target.value;
        if (what === "model") turnDials(); // its strengths may be of another size
        setUp();
      });
    }
  }
  [chosen.A.direction, chosen.B.direction] = Object.keys(records[keys[0]].directions);
  $("all").addEventListener("input", () => {
    const asked = levels(allNames())[$("all").value];
    for (const name of allNames()) dials[name] = asked;
    draw();
  });
  $("harmful").addEventListener("change", responses);
  turnDials();
  setUp();
}

start();
