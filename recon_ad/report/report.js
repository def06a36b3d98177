"use strict";
/* Adds sliders for the two thresholds, and sorting, filtering and paging of the table of test
   images. The page is readable without it. All data are in data attributes of the elements. */
(() => {
  const PAGE = 500; // rows shown at once; thousands would make each step slow
  const count = new Intl.NumberFormat("en");
  const byId = (id) => document.getElementById(id);

  /* Show the slider in `box` and call move(position, step) at each of its positions. `step` is the
     threshold as text, or null at the calibrated one, where the detector's own results apply. */
  function slide(box, move) {
    const input = box.querySelector("input");
    const button = box.querySelector("button");
    const steps = box.dataset.steps.split(" ");
    const start = Number(box.dataset.start);
    function show() {
      const position = Number(input.value);
      const step = steps[position];
      let words = `${step}, the calibrated value`;
      if (position !== start) {
        const [where, effect] =
          position > start ? ["above", box.dataset.stricter] : ["below", box.dataset.looser];
        words = `${step}, ${where} the calibrated ${steps[start]}: ${effect}`;
      }
      box.querySelector(".now").textContent = words;
      input.setAttribute("aria-valuetext", words);
      button.disabled = position === start;
      move(position, position === start ? null : step);
    }
    input.addEventListener("input", show);
    button.addEventListener("click", () => {
      input.value = start;
      input.focus(); // before the button is disabled and drops it
      show();
    });
    input.value = start; // some browsers keep the old position when the page is loaded again
    box.hidden = box.nextElementSibling.hidden = false;
    show();
  }

  const asNumber = (step) => Number(step.replaceAll(",", ""));

  // The table of test images.

  function readRow(tr) {
    const cells = tr.cells;
    return {
      tr,
      name: cells[0].textContent,
      truth: cells[1].textContent,
      text: cells[2].textContent,
      score: Number(tr.dataset.score),
      byDetector: tr.dataset.called === "1",
      defective: tr.dataset.defective === "1",
      called: tr.dataset.called === "1",
    };
  }

  const mistake = (row) =>
    row.called === row.defective ? "" : row.called ? "false alarm" : "missed";

  function writeRow(row, threshold) {
    const [, , score, called] = row.tr.cells;
    const wrong = mistake(row);
    called.textContent = row.called ? "defective" : "good";
    if (wrong) {
      const mark = document.createElement("strong");
      mark.className = "wrong";
      mark.textContent = wrong;
      called.append(" ", mark);
    }
    // Enough digits to distinguish the score from the threshold.
    score.textContent = row.text;
    if (threshold === null || !Number.isFinite(row.score)) return;
    for (let digits = 3; digits <= 17; digits++) {
      if (asNumber(score.textContent) > threshold === row.called) break;
      score.textContent = row.score.toPrecision(digits);
    }
  }

  const collator = new Intl.Collator("en", { numeric: true });
  const COLUMNS = [
    { compare: (a, b) => collator.compare(a.name, b.name), first: 1 },
    { compare: (a, b) => collator.compare(a.truth, b.truth), first: 1 },
    { compare: (a, b) => rank(a.score) - rank(b.score) || 0, first: -1 },
    { compare: (a, b) => collator.compare(label(a), label(b)), first: 1 },
  ];
  // Scores that are not a number need attention, so they rank above the highest.
  const rank = (score) => (Number.isNaN(score) ? Infinity : score);
  const label = (row) => `${row.called ? "defective" : "good"} ${mistake(row)}`;

  function tabulate(box) {
    const body = box.querySelector("tbody");
    const heads = [...box.querySelectorAll("thead th")];
    const rows = [...body.rows].map(readRow);
    const truth = byId("filter-truth");
    const called = byId("filter-called");
    const name = byId("filter-name");
    const back = byId("page-back");
    const on = byId("page-on");
    let ordered = rows;
    let sorted = { column: 2, direction: -1 };
    let threshold = null;
    let page = 0;

    const wanted = (row) =>
      (!truth.value || row.truth === truth.value) &&
      (!called.value ||
        (called.value === "wrong"
          ? mistake(row) !== ""
          : called.value === mistake(row) ||
            called.value === (row.called ? "defective" : "good"))) &&
      row.name.toLowerCase().includes(name.value.toLowerCase());

    function show() {
      const chosen = ordered.filter(wanted);
      const pages = Math.max(1, Math.ceil(chosen.length / PAGE));
      page = Math.min(page, pages - 1);
      const shown = chosen.slice(page * PAGE, (page + 1) * PAGE);
      for (const row of shown) writeRow(row, threshold);
      body.replaceChildren(...shown.map((row) => row.tr));
      const span = pages > 1 ? `, ${page + 1} of ${pages} pages of ${PAGE}` : "";
      byId("filter-count").textContent =
        `${count.format(chosen.length)} of ${count.format(rows.length)} images${span}`;
      back.hidden = on.hidden = pages === 1;
      back.disabled = page === 0;
      on.disabled = page === pages - 1;
    }

    function sort() {
      const { column, direction } = sorted;
      // A copy: rows that compare equal keep the order of the page as it was written.
      ordered = [...rows].sort((a, b) => direction * COLUMNS[column].compare(a, b));
      heads.forEach((head, i) => {
        if (i === column) head.ariaSort = direction > 0 ? "ascending" : "descending";
        else head.removeAttribute("aria-sort");
      });
    }

    const restart = () => {
      page = 0;
      show();
    };
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const again = sorted.column === column;
        sorted = { column, direction: again ? -sorted.direction : COLUMNS[column].first };
        sort();
        restart();
      });
    });
    for (const kind of [...new Set(rows.map((row) => row.truth))].sort(collator.compare)) {
      truth.append(new Option(kind, kind));
    }
    for (const field of [truth, called, name]) field.addEventListener("input", restart);
    const turn = (by) => () => {
      page += by;
      show();
      box.scrollTop = 0;
    };
    back.addEventListener("click", turn(-1));
    on.addEventListener("click", turn(1));
    const caption = `All ${count.format(rows.length)} test images`; // the order can now change
    box.querySelector("caption").textContent = caption;
    box.ariaLabel = caption;
    byId("filters").hidden = false;
    sort();
    show();

    const title = heads[3].querySelector("button");
    /* Decide all rows again: at null as the detector did, otherwise by their scores. */
    function decide(step) {
      threshold = step === null ? null : asNumber(step);
      for (const row of rows) {
        row.called = step === null ? row.byDetector : row.score > threshold;
      }
      title.textContent = step === null ? "decision" : `decision at ${step}`;
      if (sorted.column === 3) sort();
      show();
      tally(rows);
    }
    if (byId("image-threshold")) slide(byId("image-threshold"), (_, step) => decide(step));
  }

  function tally(rows) {
    const number = (defective, called) =>
      rows.filter((row) => row.defective === defective && row.called === called).length;
    const [falseAlarms, passed] = [number(false, true), number(false, false)];
    const [trueAlarms, misses] = [number(true, true), number(true, false)];
    const [good, bad] = [falseAlarms + passed, trueAlarms + misses];
    const of = (part, all, kind) =>
      `${count.format(part)} of ${count.format(all)} ${kind} images`;
    const rate = (part, all) => `${((100 * part) / all).toFixed(1)}\u00a0%`;
    const write = (id, words) => {
      const place = byId(`count-${id}`); // absent if no image is of that kind
      if (place) place.textContent = words;
    };
    write("false-alarms", of(falseAlarms, good, "good"));
    write("misses", of(misses, bad, "defective"));
    write("true-alarms", of(trueAlarms, bad, "defective"));
    write("fpr", rate(falseAlarms, good));
    write("tpr", rate(trueAlarms, bad));
  }

  // The pictures.

  /* Dilate a mask by a square of side 2 radius + 1; beyond the border it is `outside`. */
  function grow(mask, width, height, radius, outside) {
    const along = (from, lines, length, line, step) => {
      const to = new Uint8Array(from.length);
      for (let i = 0; i < lines; i++) {
        let last = outside ? -1 : -Infinity;
        for (let j = 0, at = i * line; j < length; j++, at += step) {
          if (from[at]) last = j;
          if (j - last <= radius) to[at] = 1;
        }
        last = outside ? length : Infinity;
        for (let j = length - 1, at = i * line + j * step; j >= 0; j--, at -= step) {
          if (from[at]) last = j;
          if (last - j <= radius) to[at] = 1;
        }
      }
      return to;
    };
    return along(along(mask, height, width, width, 1), width, height, 1, width);
  }

  /* Return the pixels of an embedded picture. */
  async function pixels(source, width, height) {
    const picture = new Image();
    picture.src = source;
    await picture.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width || picture.width, height || picture.height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  }

  /* Draw one panel's outlines exactly as `outlined` in pictures.py does. */
  function outlines(article, colours) {
    const still = article.querySelector(".outlines img");
    const words = article.querySelector(".outlines figcaption span");
    const calibrated = words.textContent;
    const counts = article.dataset.pixels.split(" ").map(Number);
    const regions = article.dataset.regions.split(" ").map(Number);
    const line = Number(article.dataset.line);
    const half = Math.floor((line + 1) / 2);
    const [maskColour, truthColour, gapColour] = colours;
    const canvas = document.createElement("canvas");
    canvas.className = still.className;
    canvas.hidden = true;
    canvas.setAttribute("role", "img");
    still.after(canvas);
    let wanted = null; // the position to draw, null for the calibrated one
    let loading = null;
    let parts = null;

    async function load() {
      const map = await pixels(article.dataset.levels);
      const { width, height } = map;
      const base = await pixels(article.querySelector(".image img").src, width, height);
      [canvas.width, canvas.height] = [width, height];
      const level = new Uint8Array(width * height);
      const truth = new Uint8Array(width * height);
      for (let i = 0; i < level.length; i++) {
        level[i] = map.data[4 * i] & 127;
        truth[i] = map.data[4 * i] >> 7;
      }
      const inner = grow(truth, width, height, half, false);
      const dashes = grow(truth, width, height, half + line, false);
      for (let y = 0, i = 0; y < height; y++) {
        for (let x = 0; x < width; x++, i++) {
          dashes[i] = !dashes[i] || inner[i] ? 0 : (x + y) % (5 * line) < 3 * line ? 1 : 2;
        }
      }
      const drawn = new ImageData(width, height);
      return { level, dashes, width, height, drawn, base: base.data };
    }

    function draw() {
      const { level, dashes, width, height, drawn, base } = parts;
      const mask = new Uint8Array(level.length);
      const rest = new Uint8Array(level.length);
      for (let i = 0; i < level.length; i++) {
        mask[i] = level[i] > wanted;
        rest[i] = !mask[i];
      }
      const outer = grow(mask, width, height, half, false);
      const edge = grow(rest, width, height, half, true);
      drawn.data.set(base);
      for (let i = 0; i < level.length; i++) {
        const colour =
          dashes[i] === 1 ? truthColour
          : dashes[i] === 2 ? gapColour
          : outer[i] && edge[i] ? maskColour
          : null;
        if (colour) drawn.data.set(colour, 4 * i);
      }
      canvas.getContext("2d").putImageData(drawn, 0, 0);
    }

    return async (position, step) => {
      wanted = step === null ? null : position;
      let mask = "nothing marked";
      if (counts[position]) {
        const plural = regions[position] === 1 ? "region" : "regions";
        mask = `marked ${count.format(counts[position])} px in `;
        mask += `${count.format(regions[position])} ${plural}`;
      }
      words.textContent = step === null ? calibrated : `at ${step}, ${mask}`;
      canvas.setAttribute("aria-label", `Outlines at the pixel threshold ${step}: ${mask}`);
      if (step !== null && !parts) {
        loading ??= load();
        parts = await loading; // the slider may have moved on, hence `wanted`
      }
      canvas.hidden = wanted === null;
      still.hidden = wanted !== null;
      if (wanted !== null) draw();
    };
  }

  function pictures(box) {
    const numbers = box.dataset.colours.split(" ").map(Number);
    const colours = [0, 3, 6].map((i) => numbers.slice(i, i + 3));
    const panels = [...document.querySelectorAll(".panel[data-levels]")];
    const redraw = new Map(panels.map((article) => [article, outlines(article, colours)]));
    let latest = null;
    let queue = [];

    /* Draw a few pictures in each frame, so that the slider never waits for all of them. */
    async function work() {
      box.ariaBusy = "true";
      while (queue.length) {
        await new Promise(requestAnimationFrame);
        const until = performance.now() + 12;
        do await redraw.get(queue.shift())(...latest);
        while (queue.length && performance.now() < until);
      }
      box.ariaBusy = "false";
    }

    const distance = (article) =>
      Math.abs(article.getBoundingClientRect().top - window.innerHeight / 2);
    slide(box, (position, step) => {
      latest = [position, step];
      const places = new Map(panels.map((article) => [article, distance(article)]));
      queue = [...panels].sort((a, b) => places.get(a) - places.get(b));
      if (box.ariaBusy !== "true") work();
    });
  }

  const table = document.querySelector(".images");
  if (table) tabulate(table);
  if (byId("pixel-threshold")) pictures(byId("pixel-threshold"));
})();
