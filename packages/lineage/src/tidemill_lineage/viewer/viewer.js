"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const WIDTH = 260, GAP_X = 130, GAP_Y = 28, HEAD = 56, ROW = 26, PAD = 32, SHOWN = 30;
  const sets = new Map(data.datasets.map((d) => [d.urn, { urn: d.urn, key: d.asset_key || "", columns: new Map(d.columns), layer: 0, open: false }]));
  const edges = data.edges.map((e) => ({ source_column: "", target_column: "", job: "", ...e }));
  for (const e of edges) {
    for (const [urn, column] of [[e.source, e.source_column], [e.target, e.target_column]]) {
      if (!sets.has(urn)) sets.set(urn, { urn, key: "", columns: new Map(), layer: 0, open: false });
      if (column && !sets.get(urn).columns.has(column)) sets.get(urn).columns.set(column, "");
    }
  }
  const state = { picked: null, found: new Set(), zoom: 1 };
  const urnOf = (name) => name.split("#")[0];
  const columnOf = (name) => (name.includes("#") ? name.slice(name.indexOf("#") + 1) : "");
  const nameOf = (urn, column) => (column ? urn + "#" + column : urn);
  const tail = (urn) => {
    const path = urn.replace(/^[a-z0-9+.-]+:\/\//i, "").replace(/\/+$/, "");
    return decodeURIComponent(path.split("/").slice(-1)[0] || path);
  };
  const title = (set) => set.key || (set.urn.startsWith("asset://") ? set.urn.slice(8) : tail(set.urn));
  const label = (name) => title(sets.get(urnOf(name))) + (columnOf(name) ? " . " + columnOf(name) : "");

  const between = new Map();
  for (const e of edges) {
    if (e.source === e.target) continue;
    const key = e.source + "\n" + e.target;
    const pair = between.get(key) || { source: e.source, target: e.target, direct: false };
    pair.direct = pair.direct || e.kind === "DIRECT";
    between.set(key, pair);
  }
  const pairs = [...between.values()];

  // Layers by longest path; an edge back to an open ancestor (a cycle) is left out of the ranking.
  const into = new Map([...sets.keys()].map((urn) => [urn, []]));
  pairs.forEach((p) => into.get(p.target).push(p.source));
  const rank = new Map(), open = new Set();
  const layerOf = (urn) => {
    if (rank.has(urn)) return rank.get(urn);
    if (open.has(urn)) return -1;
    open.add(urn);
    const layer = 1 + Math.max(-1, ...into.get(urn).map(layerOf));
    open.delete(urn);
    rank.set(urn, layer);
    return layer;
  };
  const layers = [];
  for (const set of sets.values()) {
    set.layer = layerOf(set.urn);
    (layers[set.layer] = layers[set.layer] || []).push(set);
  }
  // A source with a single consumer stands right before it, so that wires stay short.
  for (const set of layers[0] || []) {
    const uses = pairs.filter((p) => p.source === set.urn).map((p) => rank.get(p.target));
    set.layer = uses.length ? Math.max(0, Math.min(...uses) - 1) : 0;
  }
  const columnsOfLayers = [];
  for (const set of sets.values()) (columnsOfLayers[set.layer] = columnsOfLayers[set.layer] || []).push(set);
  for (let i = 0; i < columnsOfLayers.length; i++) columnsOfLayers[i] = columnsOfLayers[i] || [];
  columnsOfLayers.forEach((list) => list.sort((a, b) => title(a).localeCompare(title(b))).forEach((s, i) => (s.at = i)));
  const mean = (list, other) => (list.length ? list.reduce((sum, urn) => sum + sets.get(urn).at, 0) / list.length : other);
  for (let pass = 0; pass < 8; pass++) {
    const order = pass % 2 ? [...columnsOfLayers].reverse() : columnsOfLayers;
    for (const list of order) {
      for (const s of list) {
        const near = pairs.filter((p) => (pass % 2 ? p.source : p.target) === s.urn).map((p) => (pass % 2 ? p.target : p.source));
        s.want = mean(near, s.at);
      }
      list.sort((a, b) => a.want - b.want || title(a).localeCompare(title(b))).forEach((s, i) => (s.at = i));
    }
  }

  const indirect = () => byId("indirect").checked;
  const usable = (e) => indirect() || e.kind === "DIRECT";
  // All that reaches, or is reached from, a dataset or column. A whole dataset stands for each of its columns.
  const closure = (start, from, fromColumn, to, toColumn) => {
    const seen = new Set([start]), used = new Set(), queue = [start];
    while (queue.length) {
      const name = queue.shift(), urn = urnOf(name), column = columnOf(name);
      for (const e of edges) {
        if (e[from] !== urn || !usable(e)) continue;
        if (column && e[fromColumn] && e[fromColumn] !== column) continue;
        used.add(e);
        let next = [nameOf(e[to], e[toColumn])];
        if (!e[toColumn] && column && to === "target") next = [...sets.get(e[to]).columns.keys()].map((c) => nameOf(e[to], c)).concat(next);
        for (const each of next) if (!seen.has(each)) { seen.add(each); queue.push(each); }
      }
    }
    return { seen, used };
  };
  const highlight = () => {
    if (!state.picked) return null;
    const up = closure(state.picked, "target", "target_column", "source", "source_column");
    const down = closure(state.picked, "source", "source_column", "target", "target_column");
    const names = new Set([...up.seen, ...down.seen]);
    return { names, urns: new Set([...names].map(urnOf)), used: new Set([...up.used, ...down.used]) };
  };

  const rowsOf = (set, lit) => {
    const all = [...set.columns.keys()];
    if (set.open) return all.slice(0, Math.max(SHOWN, set.all ? all.length : 0));
    if (!lit) return all.filter((c) => state.found.has(nameOf(set.urn, c)));
    const touched = new Set();
    for (const e of lit.used) {
      if (e.source === set.urn) touched.add(e.source_column);
      if (e.target === set.urn) touched.add(e.target_column);
    }
    const picked = state.picked && urnOf(state.picked) === set.urn ? columnOf(state.picked) : "";
    if (!columnOf(state.picked) && !picked) return [];
    return all.filter((c) => touched.has(c) || c === picked);
  };

  const draw = () => {
    const lit = highlight(), stage = byId("stage"), wires = byId("wires");
    stage.querySelectorAll(".box").forEach((b) => b.remove());
    wires.replaceChildren();
    const spots = new Map();
    let wide = 0, high = 0;
    const heights = columnsOfLayers.map((list) => {
      let y = PAD;
      for (const set of list) {
        set.rows = rowsOf(set, lit);
        set.extra = set.open ? set.columns.size - set.rows.length : 0;
        set.height = HEAD + ROW * (set.rows.length + (set.extra ? 1 : 0));
        set.y = y;
        y += set.height + GAP_Y;
      }
      return y;
    });
    const tallest = Math.max(0, ...heights);
    columnsOfLayers.forEach((list, layer) => {
      const shift = Math.max(0, Math.min(160, (tallest - heights[layer]) / 2));
      for (const set of list) {
        const x = PAD + layer * (WIDTH + GAP_X), y = set.y + shift;
        const box = make("div", "box");
        box.style.left = x + "px"; box.style.top = y + "px"; box.style.height = set.height + "px";
        box.dataset.urn = set.urn;
        if (lit && !lit.urns.has(set.urn)) box.classList.add("faded");
        if (state.found.has(set.urn)) box.classList.add("found");
        if (state.picked === set.urn) box.classList.add("picked");
        const head = make("button", "head");
        head.type = "button"; head.title = set.urn; head.style.height = HEAD + "px";
        head.append(make("b", "", title(set)));
        const small = make("small");
        small.append(make("span", "", set.urn.split("://")[0] + (set.key ? " : " + tail(set.urn) : "")), make("span", "", set.columns.size + (set.columns.size === 1 ? " column" : " columns")));
        head.append(small);
        head.onclick = () => { set.open = !set.open; pick(set.urn, true); };
        box.append(head);
        spots.set(set.urn, { x, y: y + HEAD / 2 });
        set.rows.forEach((column, i) => {
          const name = nameOf(set.urn, column), row = make("button", "col");
          row.type = "button"; row.title = column + " " + set.columns.get(column);
          row.append(make("span", "", column), make("span", "", set.columns.get(column)));
          if (lit && lit.names.has(name)) row.classList.add("on");
          if (state.found.has(name)) row.classList.add("found");
          if (state.picked === name) row.classList.add("picked");
          row.onclick = () => pick(state.picked === name ? null : name);
          box.append(row);
          spots.set(name, { x, y: y + HEAD + ROW * (i + 0.5) });
        });
        if (set.extra) {
          const more = make("button", "col more", set.extra + " more");
          more.onclick = () => { set.all = true; draw(); };
          box.append(more);
        }
        stage.append(box);
        wide = Math.max(wide, x + WIDTH + PAD); high = Math.max(high, y + set.height + PAD);
      }
    });
    wires.setAttribute("width", wide); wires.setAttribute("height", high);
    stage.style.width = wide + "px"; stage.style.height = high + "px";
    stage.style.transform = "scale(" + state.zoom + ")";
    stage.style.marginRight = wide * (state.zoom - 1) + "px"; stage.style.marginBottom = high * (state.zoom - 1) + "px";
    const wire = (a, b, kind) => {
      if (!a || !b) return;
      const x1 = a.x + WIDTH, x2 = b.x, bend = x2 > x1 ? Math.max(40, (x2 - x1) / 2) : 90;
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", `M${x1},${a.y} C${x1 + bend},${a.y} ${x2 - bend},${b.y} ${x2},${b.y}`);
      path.setAttribute("class", kind);
      wires.append(path);
    };
    for (const p of pairs) {
      if (p.direct || indirect()) wire(spots.get(p.source), spots.get(p.target), lit ? "faded" : "");
    }
    const drawn = new Set();
    if (lit) for (const e of lit.used) {
      const a = spots.get(nameOf(e.source, e.source_column)) ? nameOf(e.source, e.source_column) : e.source;
      const b = spots.get(nameOf(e.target, e.target_column)) ? nameOf(e.target, e.target_column) : e.target;
      const key = [a, b, e.kind].join("\n");
      if (a === b || drawn.has(key)) continue;
      drawn.add(key);
      wire(spots.get(a), spots.get(b), e.kind.toLowerCase());
    }
  };

  const listOf = (name, way) => {
    const urn = urnOf(name), column = columnOf(name), up = way === "up";
    return edges.filter((e) => (up ? e.target : e.source) === urn && usable(e) &&
      (!column || !(up ? e.target_column : e.source_column) || (up ? e.target_column : e.source_column) === column));
  };
  const section = (side, heading, name, way) => {
    const found = listOf(name, way);
    if (!found.length) return;
    const others = new Map();
    for (const e of found) {
      const other = way === "up" ? nameOf(e.source, e.source_column) : nameOf(e.target, e.target_column);
      others.set(other, [...(others.get(other) || []), e]);
    }
    const rank = (list) => (list.some((e) => e.kind === "DIRECT") ? 0 : 1);
    const sorted = [...others].sort((a, b) => rank(a[1]) - rank(b[1]) || label(a[0]).localeCompare(label(b[0])));
    side.append(make("h3", "", heading + " (" + sorted.length + ")"));
    const list = make("ul");
    for (const [other, reasons] of sorted.slice(0, 300)) {
      const item = make("li"), go = make("button", "", label(other));
      go.onclick = () => pick(other);
      item.append(go);
      const told = new Set();
      for (const e of reasons) {
        const own = columnOf(name) ? "" : way === "up" ? e.target_column : e.source_column;
        const text = e.kind.toLowerCase() + ": " + e.subtype.toLowerCase().replace("_", " ") + ", by " + e.method +
          (own ? (way === "up" ? ", to " : ", from ") + own : "") + (e.job ? ", " + e.job : "");
        if (told.has(text)) continue;
        told.add(text);
        item.append(make("span", "tag " + e.kind.toLowerCase(), text));
      }
      list.append(item);
    }
    side.append(list);
  };
  const describe = () => {
    const side = byId("side");
    side.replaceChildren();
    if (!state.picked) {
      side.append(make("h2", "", "How to read this"));
      side.append(make("p", "", "Data flows from left to right. Click a dataset to see its columns, and a column to see where it comes from and what depends on it."));
      side.append(make("p", "", "Solid blue: values flow (direct). Dashed orange: a filter, join, group or sort decides which rows there are (indirect)."));
      side.append(make("h3", "", "Datasets"));
      const list = make("ul");
      for (const set of [...sets.values()].sort((a, b) => title(a).localeCompare(title(b)))) {
        const item = make("li"), go = make("button", "", title(set));
        go.onclick = () => pick(set.urn);
        item.append(go, make("span", "tag", set.urn));
        list.append(item);
      }
      side.append(list);
      return;
    }
    side.append(make("h2", "", label(state.picked)), make("p", "", state.picked));
    const set = sets.get(urnOf(state.picked));
    if (columnOf(state.picked)) side.append(make("p", "", "Type: " + (set.columns.get(columnOf(state.picked)) || "unknown")));
    const makers = data.jobs.filter((j) => j.writes.includes(set.urn)).map((j) => j.name);
    if (makers.length) side.append(make("p", "", "Written by: " + makers.join(", ")));
    section(side, "Comes from", state.picked, "up");
    section(side, "Goes to", state.picked, "down");
    const clear = make("button", "", "Clear selection");
    clear.style.marginTop = "14px";
    clear.onclick = () => pick(null);
    side.append(clear);
  };
  const pick = (name, keep) => {
    state.picked = name && keep && state.picked === name ? null : name;
    history.replaceState(null, "", state.picked ? "#" + encodeURIComponent(state.picked) : location.pathname + location.search);
    draw();
    describe();
  };
  const reveal = (name) => {
    const box = [...document.querySelectorAll(".box")].find((b) => b.dataset.urn === urnOf(name));
    if (box) box.scrollIntoView({ block: "center", inline: "center" });
  };
  const names = [];
  for (const set of sets.values()) {
    names.push({ text: title(set), name: set.urn });
    for (const column of set.columns.keys()) names.push({ text: title(set) + " . " + column, name: nameOf(set.urn, column) });
  }
  names.forEach((n) => byId("names").append(Object.assign(make("option"), { value: n.text })));
  byId("search").oninput = (event) => {
    const text = event.target.value.trim().toLowerCase();
    const exact = names.filter((n) => n.text.toLowerCase() === text);
    const hits = !text ? [] : exact.length ? exact : names.filter((n) => n.text.toLowerCase().includes(text) || n.name.toLowerCase() === text);
    state.found = new Set(hits.slice(0, 200).map((n) => n.name));
    if (hits.length === 1) { pick(hits[0].name); reveal(hits[0].name); } else draw();
  };
  byId("indirect").onchange = () => { draw(); describe(); };
  byId("expand").onclick = () => { sets.forEach((s) => (s.open = true)); draw(); };
  byId("collapse").onclick = () => { sets.forEach((s) => { s.open = false; s.all = false; }); pick(null); };
  byId("smaller").onclick = () => { state.zoom = Math.max(0.3, state.zoom - 0.1); draw(); };
  byId("larger").onclick = () => { state.zoom = Math.min(2, state.zoom + 0.1); draw(); };
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") pick(null); });
  byId("count").textContent = `${sets.size} datasets, ${names.length - sets.size} columns, ${edges.length} edges`;
  const asked = decodeURIComponent(location.hash.slice(1));
  if (asked && sets.has(urnOf(asked))) state.picked = asked;
  const across = PAD * 2 + columnsOfLayers.length * (WIDTH + GAP_X) - GAP_X;
  state.zoom = Math.max(0.7, Math.min(1, byId("canvas").clientWidth / across));
  draw();
  describe();
  if (state.picked) reveal(state.picked);
})();
