"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const get = (id) => document.getElementById(id);
  const number = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // The heatmap: share of a site's load or gate mass, over what an even spread would give.
  const sites = data.sites;
  const width = Math.max(1, ...sites.map((site) => site.loads.length));
  const measures = { load: "load", mass: "gate mass" };
  let measure = "load";
  const head = 18; // of the experts' numbers
  let cell = 8;
  let chosen = null;
  const canvas = get("heat");
  const values = (site) => (measure === "load" ? site.loads : site.mass);
  const label = () => 8 * Math.max(...sites.map((site) => site.name.length), 2) + 8;

  const sum = (all) => (all || []).reduce((total, value) => total + (value || 0), 0);
  const totals = {
    load: new Map(sites.map((site) => [site, sum(site.loads)])),
    mass: new Map(sites.map((site) => [site, sum(site.mass)])),
  };

  function ratio(site, expert) {
    const all = values(site);
    if (!all || all[expert] === null || all[expert] === undefined) return null;
    const total = totals[measure].get(site);
    return total ? (all[expert] * all.length) / total : null;
  }

  function mix(from, to, share) {
    const parse = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    const [a, b] = [parse(from), parse(to)];
    return `rgb(${a.map((value, at) => Math.round(value + (b[at] - value) * share)).join(",")})`;
  }

  // How many experts lie from one number to the next, so that they do not touch: a power of two, as experts mostly are.
  function apart(count, size) {
    const needed = 7 * String(count - 1).length + 6;
    let step = 1;
    while (step * size < needed) step *= 2;
    return step;
  }

  function draw() {
    const left = label();
    const room = canvas.parentElement.clientWidth - left;
    const most = Math.max(26, Math.min(40, Math.floor(400 / Math.max(1, sites.length)))); // few sites: as large as a finger
    cell = Math.max(6, Math.min(most, Math.floor(room / width)));
    const scale = window.devicePixelRatio || 1;
    const size = [left + width * cell, head + Math.max(1, sites.length) * cell];
    canvas.style.width = `${size[0]}px`;
    canvas.style.height = `${size[1]}px`;
    [canvas.width, canvas.height] = size.map((value) => Math.round(value * scale));
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const highest = sites.reduce((most, site) => site.loads.reduce((more, _, at) => Math.max(more, ratio(site, at) || 0), most), 0);
    const top = Math.min(8, Math.max(1.5, highest));
    const [cold, hot, text, error, dim] = ["--cold", "--hot", "--text", "--error", "--dim"].map(style);
    pen.textBaseline = "middle";
    pen.textAlign = "center";
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = dim;
    for (let expert = 0; expert < width; expert += apart(width, cell)) {
      pen.fillText(String(expert), left + (expert + 0.5) * cell, head / 2);
    }
    pen.textAlign = "left";
    pen.font = `${Math.min(13, Math.max(8, cell))}px system-ui, sans-serif`;
    sites.forEach((site, row) => {
      const down = head + row * cell;
      pen.fillStyle = text;
      const every = Math.max(1, Math.ceil(11 / cell));
      if (row % every === 0) pen.fillText(site.name, 0, down + cell / 2);
      site.loads.forEach((load, expert) => {
        const over = ratio(site, expert);
        if (over === null) return;
        pen.fillStyle = mix(cold, hot, Math.min(over / top, 1) ** 0.7);
        pen.fillRect(left + expert * cell, down, cell - (cell > 4), cell - (cell > 4));
        if (load === 0 && site.routed) {
          pen.strokeStyle = error;
          pen.strokeRect(left + expert * cell + 1, down + 1, cell - 3, cell - 3);
        }
      });
    });
    if (chosen) {
      pen.strokeStyle = text;
      pen.lineWidth = 2;
      pen.strokeRect(left + chosen[1] * cell, head + chosen[0] * cell, cell, cell);
    }
  }

  function read(row, expert) {
    const site = sites[row];
    if (!site || expert < 0 || expert >= site.loads.length) return;
    chosen = [row, expert];
    const over = ratio(site, expert);
    const mass = site.mass ? number(site.mass[expert], 1) : "unknown";
    const dead = site.loads[expert] === 0 ? " · dead" : "";
    get("heat-readout").textContent =
      `${site.name} · expert ${expert}: ${site.loads[expert].toLocaleString("en")} tokens, ` +
      `gate mass ${mass}, ${over === null ? "–" : over.toFixed(2)}× the even share of ${measures[measure]}${dead}`;
    draw();
  }

  function point(event) {
    const box = canvas.getBoundingClientRect();
    read(Math.floor((event.clientY - box.top - head) / cell), Math.floor((event.clientX - box.left - label()) / cell));
  }
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!by) return;
    const [row, expert] = chosen || [0, 0];
    read(row + by[0], expert + by[1]);
    event.preventDefault();
  });
  if (sites.some((site) => site.mass)) {
    for (const [key, name] of Object.entries(measures)) {
      const button = document.createElement("button");
      button.textContent = name;
      button.setAttribute("aria-pressed", String(key === measure));
      button.addEventListener("click", () => {
        measure = key;
        for (const each of get("measures").children) each.setAttribute("aria-pressed", String(each === button));
        draw();
      });
      get("measures").append(button, " ");
    }
  }
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();

  // The tokens.
  const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const indices = new Uint16Array(bytes(data.tokens.indices).buffer);
  const weights = data.tokens.weights === null ? null : new Int16Array(bytes(data.tokens.weights).buffer);
  const slots = data.tokens.slots;
  const known = data.tokens.rows.map((row) => row[2]).filter((value) => value !== null);
  const [lowest, highest] = [Math.min(...known), Math.max(...known)];
  const text = get("text");
  let marked = null;

  function show(number_, span) {
    const [index, word, entropy, confidence, ms, phase] = data.tokens.rows[number_];
    if (marked) marked.classList.remove("chosen");
    marked = span;
    span.classList.add("chosen");
    get("token-readout").textContent =
      `${index} · ${phase} · “${word}” · entropy ${number(entropy, 3)} nats · confidence ${number(confidence, 3)} · ` +
      `${number(ms, 2)} ms`;
    const flow = get("flow");
    flow.textContent = "";
    sites.forEach((site, row) => {
      const chips = document.createElement("div");
      for (let slot = 0; slot < slots; slot += 1) {
        const at = (number_ * sites.length + row) * slots + slot;
        if (indices[at] === 0xffff) continue;
        const chip = document.createElement("span");
        chip.className = "chip";
        const weight = weights && weights[at] !== -0x8000 ? ` ${(weights[at] / data.tokens.weight_parts).toFixed(3)}` : "";
        chip.textContent = `E${indices[at]}${weight}`;
        chips.append(chip);
      }
      if (!chips.children.length) return;
      const name = document.createElement("div");
      name.className = "dim";
      name.textContent = site.name;
      flow.append(name, chips);
    });
  }

  data.tokens.rows.forEach((row, number_) => {
    const span = document.createElement("span");
    span.textContent = row[1] || "∅";
    if (row[2] !== null) {
      const share = Math.round(8 + (57 * (row[2] - lowest)) / (highest - lowest || 1));
      span.style.background = `color-mix(in srgb, var(--hot) ${share}%, transparent)`;
    }
    span.addEventListener("pointerenter", () => show(number_, span));
    span.addEventListener("pointerdown", () => show(number_, span));
    text.append(span);
    if (row[6]) text.append(document.createElement("br"));
    if (number_ === data.tokens.rows.length - 1) show(number_, span);
  });
})();
