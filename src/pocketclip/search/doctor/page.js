"use strict";
(() => {
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const canvas = document.getElementById("map");
  const hover = document.getElementById("hover");
  const preview = hover.querySelector("canvas");
  const colourBy = document.getElementById("colour-by");
  const legend = document.getElementById("legend");
  const atlas = document.getElementById("atlas");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const PROBLEMS = ["leak", "duplicate", "mislabelled", "outlier", "caption"];
  const LIGHT = ["#2f6db5", "#c2551a", "#2d7440", "#8a3fa0", "#8c6d00", "#b03060", "#00797a", "#5d6b79"];
  const DARK = ["#7fb2ec", "#f29a5c", "#7fc98f", "#c69be0", "#dbc25a", "#ee86ac", "#52c9c4", "#a3b1be"];
  const view = { x: 0.5, y: 0.5, scale: 1 };
  let at = -1;

  const palette = () => (dark.matches ? DARK : LIGHT);
  const num = data.x.length;
  const fits = data.fit.slice().sort((a, b) => a - b);
  const low = fits[Math.floor(0.02 * num)] ?? 0;
  const high = fits[Math.floor(0.98 * num)] ?? 1;

  function problem(i) {
    for (let bit = 0; bit < PROBLEMS.length; bit++) if (data.problem[i] & (1 << bit)) return bit;
    return -1;
  }

  function colour(i) {
    const tones = palette();
    if (colourBy.value === "split") return tones[data.split[i] % tones.length];
    if (colourBy.value === "cluster") return tones[data.cluster[i] % tones.length];
    if (colourBy.value === "problem") return problem(i) < 0 ? (dark.matches ? "#3a4953" : "#c3ccd2") : tones[problem(i)];
    const share = Math.min(1, Math.max(0, (data.fit[i] - low) / Math.max(1e-9, high - low)));
    return `hsl(${Math.round(12 + 168 * share)} 65% ${dark.matches ? 60 : 42}%)`;
  }

  function drawLegend() {
    const tones = palette();
    const dot = (tone, text) => {
      const item = document.createElement("span");
      const mark = document.createElement("i");
      mark.style.background = tone;
      item.append(mark, text);
      return item;
    };
    const items = [];
    if (colourBy.value === "split") data.splits.forEach((name, i) => items.push(dot(tones[i % tones.length], name)));
    if (colourBy.value === "problem") {
      PROBLEMS.forEach((name, i) => items.push(dot(tones[i], name)));
    }
    if (colourBy.value === "fit") {
      items.push(dot("hsl(12 65% 50%)", `fits badly, ${low.toFixed(2)}`), dot("hsl(180 65% 40%)", `fits well, ${high.toFixed(2)}`));
    }
    legend.replaceChildren(...items);
  }

  function size() {
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(canvas.clientHeight * ratio);
    return ratio;
  }

  function onScreen(x, y) {
    const span = 0.92 * view.scale;
    return [((x - view.x) * span + 0.5) * canvas.clientWidth, ((y - view.y) * span + 0.5) * canvas.clientHeight];
  }

  function screen(i) {
    return onScreen(data.x[i], data.y[i]);
  }

  function tile(pen, i, x, y, side) {
    const column = i % data.columns, row = Math.floor(i / data.columns);
    // a pixel of its edge is left out: neighbours on the sheet shine through
    pen.drawImage(atlas, column * data.tile + 1, row * data.tile + 1, data.tile - 2, data.tile - 2, x, y, side, side);
  }

  // the largest clusters first; a label that would cover another is left out
  function drawLabels(pen) {
    const taken = [];
    pen.font = "600 12px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.lineWidth = 4;
    pen.lineJoin = "round";
    pen.strokeStyle = getComputedStyle(canvas).backgroundColor;
    pen.fillStyle = getComputedStyle(document.body).color;
    for (const [text, px, py] of data.label) {
      const [x, y] = onScreen(px, py);
      const half = pen.measureText(text).width / 2 + 6;
      if (x - half < 0 || x + half > canvas.clientWidth) continue;
      if (taken.some(([ox, oy, other]) => Math.abs(x - ox) < half + other && Math.abs(y - oy) < 18)) continue;
      taken.push([x, y, half]);
      pen.strokeText(text, x, y);
      pen.fillText(text, x, y);
    }
  }

  function draw() {
    const ratio = size();
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    const seen = [];
    for (let i = 0; i < num; i++) {
      const [x, y] = screen(i);
      if (x > -30 && y > -30 && x < canvas.clientWidth + 30 && y < canvas.clientHeight + 30) seen.push([i, x, y]);
    }
    const pictures = seen.length <= 260;
    const side = seen.length <= 90 ? 52 : 34;
    const radius = pictures ? side / 2 : num > 2000 ? 2.5 : 4;
    // what is wrong is drawn last, on top
    if (colourBy.value === "problem") seen.sort((a, b) => (problem(a[0]) >= 0) - (problem(b[0]) >= 0));
    for (const [i, x, y] of seen) {
      if (pictures) {
        tile(pen, i, x - side / 2, y - side / 2, side);
        pen.strokeStyle = colour(i);
        pen.lineWidth = 2;
        pen.strokeRect(x - side / 2, y - side / 2, side, side);
      } else {
        pen.fillStyle = colour(i);
        pen.beginPath();
        pen.arc(x, y, colourBy.value === "problem" && problem(i) >= 0 ? radius + 2 : radius, 0, 7);
        pen.fill();
      }
    }
    if (!pictures) drawLabels(pen);
    if (at >= 0) {
      const [x, y] = screen(at);
      pen.strokeStyle = getComputedStyle(document.body).color;
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(x, y, radius + 5, 0, 7);
      pen.stroke();
    }
  }

  function show(i) {
    at = i;
    hover.hidden = i < 0;
    if (i >= 0) {
      const [x, y] = screen(i);
      const pen = preview.getContext("2d");
      preview.width = preview.height = 176;
      tile(pen, i, 0, 0, 176);
      const problems = PROBLEMS.filter((_, bit) => data.problem[i] & (1 << bit));
      hover.querySelector(".caption").textContent = data.caption[i] || "(no caption)";
      hover.querySelector(".key").textContent = `${data.splits[data.split[i]]} · ${data.key[i]}`;
      hover.querySelector(".what").textContent = `cosine ${data.fit[i].toFixed(2)}${problems.length ? " · " + problems.join(", ") : ""}`;
      const left = x + 16 + hover.offsetWidth > canvas.clientWidth ? x - 16 - hover.offsetWidth : x + 16;
      hover.style.left = `${Math.max(0, left)}px`;
      hover.style.top = `${Math.max(0, Math.min(y - 40, canvas.clientHeight - hover.offsetHeight))}px`;
    }
    draw();
  }

  function nearest(event) {
    const box = canvas.getBoundingClientRect();
    let best = -1, least = 400;
    for (let i = 0; i < num; i++) {
      const [x, y] = screen(i);
      const distance = (x - event.clientX + box.left) ** 2 + (y - event.clientY + box.top) ** 2;
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  }

  function zoom(factor, fx = 0.5, fy = 0.5) {
    const scale = Math.min(60, Math.max(1, view.scale * factor));
    view.x += (fx - 0.5) * (1 / view.scale - 1 / scale);
    view.y += (fy - 0.5) * (1 / view.scale - 1 / scale);
    view.scale = scale;
    show(-1);
  }

  let dragged = null;
  canvas.addEventListener("pointerdown", (event) => { dragged = event; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", (event) => { dragged = null; show(nearest(event)); });
  canvas.addEventListener("pointermove", (event) => {
    if (dragged) {
      view.x -= (event.clientX - dragged.clientX) / canvas.clientWidth / view.scale;
      view.y -= (event.clientY - dragged.clientY) / canvas.clientHeight / view.scale;
      dragged = event;
      show(-1);
    } else {
      show(nearest(event));
    }
  });
  canvas.addEventListener("pointerleave", () => { if (!dragged) show(-1); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 300), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const step = 0.1 / view.scale;
    const keys = {
      ArrowLeft: () => { view.x -= step; }, ArrowRight: () => { view.x += step; },
      ArrowUp: () => { view.y -= step; }, ArrowDown: () => { view.y += step; },
      "+": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: () => Object.assign(view, { x: 0.5, y: 0.5, scale: 1 }),
    };
    if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
      show(-1);
    }
  });
  colourBy.addEventListener("change", () => { drawLegend(); draw(); });
  dark.addEventListener("change", () => { drawLegend(); draw(); });
  addEventListener("resize", () => show(-1));
  atlas.decode().then(draw, draw);
  drawLegend();
})();
