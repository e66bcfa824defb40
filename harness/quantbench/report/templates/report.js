"use strict";
// What a reader may change: the limits of the verdict, the order and choice of the rows; marks that
// say who they are; copying. Without it the page is complete, only still. The choice is the one of
// harness/quantbench/analysis/recommendation.py (choose, refusal); what it compares comes from
// harness/quantbench/report/sections/interactive_choice.py.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const element = (tag, text = "", className = "") => {
    const made = document.createElement(tag);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const data = JSON.parse(byId("choosing")?.textContent ?? "null");

  // --- words, as harness/quantbench/analysis/constraints.py has them ------------------------------------------------

  const short = (number) => String(Number(number.toPrecision(6)));
  const plural = (drop) => (drop === 0.01 ? "" : "s");
  const dropLimit = (drop) => `${short(100 * drop)} point${plural(drop)}`;
  const dropWords = (drop) => `${short(100 * drop)} percentage point${plural(drop)}`;
  const sizeLimit = (bytes) => {
    const units = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]];
    const [unit, scale] = units.find((pair) => bytes >= pair[1]) ?? ["B", 1];
    return `${short(bytes / scale)} ${unit}`;
  };
  const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);
  const quoted = (word) =>
    /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;

  // --- the choice -------------------------------------------------------------------------------

  // the one-sided upper bound of a loss, where `level` bounds share the 5 %; the operations and their
  // order are those of harness/quantbench/stats/losses.py, so that no bit differs
  const boundOf = (number, level) => {
    const [, centre, error, between, freedom] = data.trials[number].loss;
    const samples = data.critical[0][level - 1] * error;
    const seeds = between ? data.critical[freedom][level - 1] * between : 0;
    return centre + Math.sqrt(samples * samples + seeds * seeds);
  };

  // whose loss is within the limit, all judged together (Holm)
  const judge = (view, limits) => {
    const fit = (view?.order ?? []).filter((number) => !view.refused[number]);
    const certain = (number) => !data.trials[number].loss[2] && !data.trials[number].loss[3];
    const judged = fit.filter((number) => !certain(number));
    const most = (number) => {
      let low = 0;
      let high = judged.length;
      while (low < high) {
        const middle = Math.floor((low + high + 1) / 2);
        if (boundOf(number, middle) <= limits.drop) low = middle;
        else high = middle - 1;
      }
      return low;
    };
    const levels = new Map(judged.map((number) => [number, most(number)]));
    const within = new Set(fit.filter(certain));
    let left = judged.length;
    for (const number of [...judged].sort((a, b) => levels.get(b) - levels.get(a))) {
      if (levels.get(number) < left) break;
      within.add(number);
      left -= 1;
    }
    return { count: judged.length, level: Math.max(left, 1), within };
  };

  // why a measured trial may not be shipped, or nothing
  const refusal = (number, refused, limits, judged) => {
    const trial = data.trials[number];
    if (refused) return refused;
    if (!judged.within.has(number)) {
      const limit = dropLimit(limits.drop);
      if (trial.loss[0] > limits.drop)
        return `loses ${trial.dropText} points${trial.over}, more than the ${limit} allowed`;
      const among = judged.count < 2 ? "" : `, judged with ${judged.count} trials`;
      const bound = (100 * boundOf(number, judged.level)).toFixed(2);
      return (
        `measured loss ${trial.dropText} points${trial.over}, but the test samples cannot rule out ` +
        `${bound} (limit ${limit}${among})`
      );
    }
    if (limits.size === null) return "";
    if (trial.size === null) return "its size is not known";
    const limit = sizeLimit(limits.size);
    return trial.size <= limits.size ? "" : `takes ${trial.sizeText}, more than the ${limit} allowed`;
  };

  // the allowed trials that no other beats in both the objective and quality; best first
  const frontOf = (allowed, costs) => {
    const front = [];
    let best = -Infinity;
    for (let i = 0; i < allowed.length; ) {
      let end = i;
      while (end < allowed.length && costs.get(allowed[end]) === costs.get(allowed[i])) end += 1;
      const level = allowed.slice(i, end);
      const top = Math.max(...level.map((number) => data.trials[number].quality));
      if (top > best) front.push(...level.filter((n) => data.trials[n].quality === top));
      best = Math.max(best, top);
      i = end;
    }
    return front;
  };

  const withinLimits = (limits) => `the allowed loss${limits.size === null ? "" : " and size"}`;

  const whyNone = (count, limits) => {
    if (count) return `none of ${count} measured trials is within ${withinLimits(limits)}`;
    return limits.objective === "energy"
      ? "no trial has an energy: this run did not measure it"
      : "no trial was measured to the end";
  };

  const whyThis = (allowed, equal, small, judged, limits) => {
    const wanted = data.objectives[limits.objective];
    const end = `within ${withinLimits(limits)}${judged > 1 ? data.holm.replace("{}", judged) : ""}`;
    if (allowed === 1) return `the only measured trial ${end}`;
    if (equal === 1) return `${wanted.best} of ${allowed} trials ${end}`;
    const by =
      small === equal
        ? "the least bound of loss of"
        : small > 1
          ? `the least bound of loss of ${small} files of one size, of`
          : "the smallest file of";
    return `${by} ${equal} that ${wanted.tie} of ${allowed} ${end}`;
  };

  // what to ship of one model on one target; `view` holds its trials, best by the objective first
  const choose = (view, limits) => {
    const order = view?.order ?? [];
    const costs = new Map(order.map((number, place) => [number, view.costs[place]]));
    const judged = judge(view, limits);
    const reasons = new Map(order.map((n) => [n, refusal(n, view.refused[n], limits, judged)]));
    const allowed = order.filter((number) => !reasons.get(number));
    const passedOver = (ahead) => order.filter((n) => reasons.get(n) && ahead(n));
    if (!allowed.length) {
      const reason = whyNone(order.length, limits);
      return { chosen: null, reason, ties: [], front: [], allowed, reasons, judged, passed: passedOver(() => true) };
    }
    const same = new Set(view.ties[allowed[0]] ?? []);
    const equal = allowed.filter((number, place) => place === 0 || same.has(number));
    const size = (number) => data.trials[number].size ?? Infinity;
    const least = Math.min(...equal.map(size));
    const small = equal.filter((number) => size(number) <= data.sameSize * least);
    const bound = (number) => data.trials[number].bound ?? Infinity;
    const chosen = small.reduce((best, number) => (bound(number) < bound(best) ? number : best));
    return {
      chosen,
      reason: whyThis(allowed.length, equal.length, small.length, judged.count, limits),
      ties: equal.filter((number) => number !== chosen),
      front: frontOf(allowed, costs),
      allowed,
      reasons,
      judged,
      passed: passedOver((number) => costs.get(number) < costs.get(chosen)),
    };
  };

  // what the choice makes of a trial: a place in data.states
  const stateOf = (number, view, choice, limits) => {
    const trial = data.trials[number];
    if (trial.other) return 8;
    if (!choice.reasons.has(number)) return 9;
    if (number === choice.chosen) return 0;
    if (choice.ties.includes(number)) return 1;
    if (!choice.reasons.get(number)) return choice.front.includes(number) ? 2 : 3;
    if (view.refused[number]) return 7;
    if (choice.judged.within.has(number)) return 4;
    return trial.loss[0] > limits.drop ? 6 : 5;
  };

  // --- the form ---------------------------------------------------------------------------------

  const form = byId("limits");

  // the view of every place by the objective, at the batch size that is asked for
  const viewsOf = (limits) => {
    const rate = limits.objective === "throughput";
    const batch = limits.batch || (rate ? "" : (data.batches[0] ?? ""));
    // at one batch size the order by throughput is the order by latency
    return data.views[`${rate && batch ? "latency" : limits.objective}/${batch}`] ?? [];
  };

  const readLimits = () => {
    const { drop, size, objective, batch, model, target } = form.elements;
    const bad = [drop, size].find((field) => !field.checkValidity());
    byId("problem").textContent = bad
      ? `${bad === drop ? "The largest loss" : "The largest size"}: ${bad.validationMessage}`
      : size.value !== "" && Number(size.value) <= 0
        ? "The largest size: above 0, or empty for any."
        : "";
    if (byId("problem").textContent) return null;
    return {
      dropText: drop.value,
      drop: Number(drop.value) / 100,
      sizeText: size.value,
      size: size.value === "" ? null : Number(size.value) * 1e6,
      objective: objective.value,
      batch: batch.value,
      model: model.value,
      target: target.value,
    };
  };

  const commandOf = (limits) => {
    const words = ["quantbench", "advise", ...data.runs];
    if (limits.model) words.push("--model", limits.model);
    if (limits.target) words.push("--target", limits.target);
    words.push("--max-drop", `${limits.dropText}pp`);
    if (limits.size !== null) words.push("--max-size", `${limits.sizeText}MB`);
    words.push("--objective", limits.objective);
    if (limits.batch) words.push("--batch-size", limits.batch);
    return words.map(quoted).join(" ");
  };

  const ruleOf = (limits) =>
    `${data.objectives[limits.objective].rule} loses no more than ${dropWords(limits.drop)} of ` +
    `quality against the float model` +
    (limits.size === null ? "" : ` and takes no more than ${sizeLimit(limits.size)}`) +
    `, judged by the upper 95 % bound of its loss.`;

  // --- the verdict ------------------------------------------------------------------------------

  const isolated = (text) => element("bdi", text);

  const factsOf = (number, view, limits) => {
    const { facts, rate } = view.texts[number];
    const throughput = limits.objective === "throughput" ? rate : [];
    return [...throughput, ...facts, ...data.cards[number].facts];
  };

  const tile = (fact, limits) => {
    const box = element("div", "", fact.tone);
    const figures = element("dd");
    figures.append(element("b", fact.value));
    for (const line of fact.lines) {
      const span = element("span");
      const open = fact.name === "Loss" && line.endsWith(data.allowed);
      span.append(isolated(open ? `${line}${short(100 * limits.drop)} pp` : line));
      figures.append(span);
    }
    box.append(element("dt", fact.name), figures);
    return box;
  };

  const show = (node, visible) => {
    node.hidden = !visible;
  };

  const renderCard = (card, view, choice, limits) => {
    const part = (selector) => card.querySelector(selector);
    const texts = choice.chosen === null ? null : data.cards[choice.chosen];
    card.classList.toggle("none", !texts);
    part(".headline bdi").textContent = texts?.headline ?? "Nothing to ship";
    part(".why").textContent = `${capital(choice.reason)}.`;
    const facts = texts ? factsOf(choice.chosen, view, limits) : [];
    part(".tiles").replaceChildren(...facts.map((fact) => tile(fact, limits)));
    show(part(".tiles"), texts);
    part(".export code").textContent = texts?.command ?? "";
    show(part(".export"), texts);
    show(part(".nothing"), !texts);
    const ties = choice.ties.map((n) => isolated(`${data.trials[n].name} (${data.trials[n].sizeText})`));
    part(".ties span").replaceChildren(...ties.flatMap((tie, i) => (i ? [", ", tie] : [tie])));
    show(part(".ties"), ties.length);
    const ahead = `${data.objectives[limits.objective].ahead}, but not allowed:`;
    part(".passed strong").textContent = texts ? ahead : "Why not:";
    const items = choice.passed.slice(0, data.most).map((number) => {
      const item = element("li");
      item.append(isolated(data.trials[number].name), `: ${choice.reasons.get(number)}.`);
      return item;
    });
    const more = choice.passed.length - items.length;
    part(".passed ul").replaceChildren(...items, ...(more ? [element("li", `and ${more} more`)] : []));
    show(part(".passed"), items.length);
  };

  const sentenceOf = (shown) => {
    if (shown.length === 1) {
      const [{ view, choice }] = shown;
      if (choice.chosen === null) return "Nothing to ship.";
      const { spoken } = view.texts[choice.chosen];
      return `${data.cards[choice.chosen].headline}${spoken ? `: ${spoken}` : ""}.`;
    }
    const shipped = shown.filter(({ choice }) => choice.chosen !== null).length;
    return `An artifact to ship for ${shipped} of ${shown.length} models and targets.`;
  };

  // --- the figure -------------------------------------------------------------------------------

  const drawn = (tag, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text;
    return made;
  };

  const drawLimit = (plot, limits) => {
    const group = drawn("g", { class: "limit" });
    if (plot.reference === null) return group;
    const share = (plot.reference - limits.drop - plot.low) / (plot.high - plot.low);
    const y = Math.min(Math.max(plot.bottom - share * (plot.bottom - plot.top), plot.top), plot.bottom);
    const { left, right, bottom } = plot;
    group.append(
      drawn("rect", { x: left, y, width: right - left, height: bottom - y }),
      drawn("path", { d: `M${left} ${y}H${right}` }),
    );
    const label = `float − ${short(100 * limits.drop)} pp`;
    const below = y + 12 < bottom ? y + 12 : y - 4;
    group.append(drawn("text", { x: right - 4, y: below, "text-anchor": "end" }, label));
    return group;
  };

  const drawFront = (plot, front) => {
    const group = drawn("g", { class: "front" });
    const points = front.map((number) => plot.at[number]).filter(Boolean);
    if (points.length > 1)
      group.append(drawn("path", { d: `M${points[0]}${points.slice(1).map((p) => `H${p[0]}V${p[1]}`).join("")}` }));
    return group;
  };

  // the name of the choice, where the figure does not have it yet
  const drawName = (plot, svg, number) => {
    const group = drawn("g", { class: "tag added" });
    if (number === null || !plot.at[number] || svg.querySelector(`.tag[data-trial="${number}"]`)) return group;
    const [x, y] = plot.at[number];
    const third = (plot.right - plot.left) / 3;
    const anchor = x < plot.left + third ? "start" : x > plot.right - third ? "end" : "middle";
    const up = y - plot.top > 24 ? -12 : 20;
    group.append(drawn("text", { x, y: y + up, "text-anchor": anchor }, data.trials[number].name));
    return group;
  };

  const renderFigure = (svg, choice, limits, sameAxis) => {
    const plot = JSON.parse(svg.dataset.plot);
    for (const old of all("g.limit, g.front, g.added", svg)) old.remove();
    const allowed = new Set(choice.allowed);
    const front = new Set(choice.front);
    for (const mark of all("[data-trial]", svg)) {
      const number = Number(mark.dataset.trial);
      mark.classList.toggle("chosen", number === choice.chosen);
      if (mark.classList.contains("tag")) continue;
      mark.classList.toggle("refused", !allowed.has(number));
      mark.classList.toggle("on-front", !sameAxis && front.has(number));
    }
    const first = svg.querySelector(".arms, .mark");
    first.before(drawLimit(plot, limits));
    if (sameAxis) first.before(drawFront(plot, choice.front));
    first.parentNode.append(drawName(plot, svg, choice.chosen));
  };

  // --- all that follows the form ----------------------------------------------------------------

  const states = new Map();
  let onStates = () => {};

  const follow = () => {
    const limits = readLimits();
    if (!limits) return;
    const views = viewsOf(limits);
    const batch = limits.batch || String(data.batches[0] ?? "");
    const atFigure = batch === String(data.batches[0] ?? "");
    const sameAxis =
      atFigure && (limits.objective === "latency" || (limits.objective === "throughput" && limits.batch !== ""));
    const shown = [];
    data.places.forEach((place, index) => {
      const asked =
        (!limits.model || limits.model === place.model) && (!limits.target || limits.target === place.target);
      for (const part of all(`[data-place="${index}"]`)) show(part, asked);
      if (!asked) {
        for (const number of place.trials) states.set(number, data.states.length);
        return;
      }
      const view = views[index];
      const choice = choose(view, limits);
      shown.push({ view, choice });
      for (const number of place.trials) states.set(number, stateOf(number, view, choice, limits));
      renderCard(document.querySelector(`.card[data-place="${index}"]`), view, choice, limits);
      for (const svg of all(`figure[data-place="${index}"] svg[data-plot]`))
        renderFigure(svg, choice, limits, sameAxis);
    });
    byId("sentence").firstElementChild.textContent = sentenceOf(shown);
    byId("rule").textContent = ruleOf(limits);
    byId("as-command").textContent = commandOf(limits);
    for (const words of all(".limit-words")) words.textContent = dropWords(limits.drop);
    for (const words of all(".front-words"))
      words.textContent = sameAxis
        ? ""
        : `The front by ${limits.objective} has no line in this plane: its trials are ringed.`;
    onStates();
  };

  const fill = (select, values) => {
    for (const value of [...new Set(values)]) select.append(new Option(value, value));
    show(select.closest("label"), select.options.length > 2);
  };

  const openForm = () => {
    const { drop, objective, batch, model, target } = form.elements;
    fill(model, data.places.map((place) => place.model));
    fill(target, data.places.map((place) => place.target));
    show(batch.closest("label"), data.batches.length > 1);
    drop.defaultValue = short(100 * data.limits.drop);
    for (const option of objective.options) {
      option.defaultSelected = option.value === data.limits.objective;
      const measured = Object.keys(data.views).some((key) => key.startsWith(`${option.value}/`));
      if (!measured && option.value !== "throughput") {
        option.disabled = true;
        option.label = `${option.value} (not measured)`;
      }
    }
    form.reset();
    form.addEventListener("input", follow);
    form.addEventListener("submit", (event) => event.preventDefault());
    // the fields have their first values only after the event
    form.addEventListener("reset", () => setTimeout(follow));
    show(form, true);
  };

  // --- a tip beside what is pointed at or has the focus ------------------------------------------

  const tip = element("div", "", "tip");
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);

  const showTip = (target, lines) => {
    tip.replaceChildren(...lines.filter(Boolean).map((line, i) => element(i ? "span" : "b", line)));
    tip.hidden = false;
    const at = target.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(at.x + at.width / 2 - own.width / 2, 8), innerWidth - own.width - 8);
    const above = at.y - own.height - 8;
    tip.style.left = `${Math.max(left, 8)}px`;
    tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
  };
  const hideTip = () => {
    tip.hidden = true;
  };
  const tipFor = (node, lines) => {
    for (const event of ["pointerenter", "focus"]) node.addEventListener(event, () => showTip(node, lines()));
    for (const event of ["pointerleave", "blur"]) node.addEventListener(event, hideTip);
  };
  document.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
  addEventListener("scroll", hideTip, { passive: true });

  // marks are one stop of the Tab key; arrows go from one to the next by latency
  const nameMarks = (svg) => {
    const { at } = JSON.parse(svg.dataset.plot);
    const marks = all(".mark", svg).sort((a, b) => at[a.dataset.trial][0] - at[b.dataset.trial][0]);
    svg.setAttribute("role", "group");
    marks.forEach((mark, place) => {
      const number = Number(mark.dataset.trial);
      const title = mark.querySelector("title");
      const [name, numbers] = [data.trials[number].name, title.textContent.slice(title.textContent.lastIndexOf(": ") + 2)];
      const lines = () => {
        const { bound, boundText } = data.trials[number];
        return [name, numbers, bound === null ? "" : `loses at most ${boundText} points`, data.states[states.get(number)]];
      };
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", title.textContent);
      mark.setAttribute("tabindex", place ? "-1" : "0");
      title.remove();
      tipFor(mark, lines);
      mark.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        const next = step && marks[place + step];
        if (!next) return;
        event.preventDefault();
        mark.setAttribute("tabindex", "-1");
        next.setAttribute("tabindex", "0");
        next.focus();
      });
    });
  };

  // --- the table --------------------------------------------------------------------------------

  const sortable = (table, rows) => {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const key = (row, column, numeric) => {
      const raw = row.cells[column].dataset.sort;
      if (!numeric) return raw;
      if (raw === "") return null;
      return raw === "inf" ? Infinity : raw === "-inf" ? -Infinity : Number(raw);
    };
    const compare = (a, b, numeric) =>
      numeric ? (a < b ? -1 : a > b ? 1 : 0) : a.localeCompare(b, "en", { numeric: true });
    heads.forEach((head, column) => {
      const button = element("button", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      const help = head.dataset.help && byId(head.dataset.help);
      if (help) {
        button.setAttribute("aria-describedby", help.id);
        tipFor(button, () => [head.textContent, help.textContent]);
      }
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const numeric = head.dataset.kind === "number";
        const sorted = rows
          .map((row, place) => ({ row, place, value: key(row, column, numeric) }))
          .sort((a, b) => {
            // rows without a value stay last in both directions
            if (a.value === null || b.value === null)
              return (a.value === null) - (b.value === null) || a.place - b.place;
            return (down ? -1 : 1) * compare(a.value, b.value, numeric) || a.place - b.place;
          });
        body.append(...sorted.map((entry) => entry.row));
      });
    });
  };

  // returns what is to be called when the text of a row has changed
  const filterable = (rows) => {
    const input = byId("filter");
    const selects = all("select[data-filter]");
    const texts = new Map();
    const valueOf = (row, name) => (name === "choice" ? row.querySelector(".state").textContent : row.dataset[name]);
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const picked = selects.filter((select) => select.value !== "");
      let count = 0;
      for (const row of rows) {
        if (words.length && !texts.has(row)) texts.set(row, row.textContent.toLowerCase());
        row.hidden = !(
          words.every((word) => texts.get(row).includes(word)) &&
          picked.every((select) => valueOf(row, select.dataset.filter) === select.value)
        );
        count += row.hidden ? 0 : 1;
      }
      byId("shown").textContent = words.length || picked.length ? `${count} of ${rows.length} trials` : "";
    };
    for (const select of selects) {
      const name = select.dataset.filter;
      const values = name === "choice" ? data.states : [...new Set(rows.map((row) => valueOf(row, name)))].sort();
      for (const value of values) select.append(new Option(value, value));
      select.addEventListener("input", apply);
    }
    input.addEventListener("input", apply);
    show(input.closest(".tools"), true);
    return (changed) => {
      for (const row of changed) texts.delete(row);
      apply();
    };
  };

  const showStates = (rows, changed) => {
    const touched = [];
    for (const row of rows) {
      const state = states.get(Number(row.dataset.number));
      const cell = row.querySelector(".state");
      if (cell.dataset.sort === String(state)) continue;
      cell.dataset.sort = String(state);
      cell.textContent = data.states[state] ?? "–";
      row.classList.toggle("chosen", state === 0);
      touched.push(row);
    }
    if (touched.length) changed(touched);
  };

  // a spreadsheet runs what begins like a formula, so such a text gets an apostrophe; numbers do not
  const csvCell = (text) => {
    const isNumber = text !== "" && Number.isFinite(Number(text));
    const safe = !isNumber && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return `"${safe.replaceAll('"', '""')}"`;
  };

  const csvOf = (table) => {
    const heads = [...table.tHead.rows[0].cells].slice(3, -1);
    const titles = heads.map((head) => head.textContent + (head.dataset.unit ? ` (${head.dataset.unit})` : ""));
    const lines = [["trial", "backend", "method", "status", "choice", ...titles, "reason"]];
    for (const row of table.tBodies[0].rows) {
      if (row.hidden) continue;
      const { number, backend, method, status } = row.dataset;
      const values = [...row.cells].slice(3, -1).map((cell) => cell.dataset.sort);
      const choice = row.querySelector(".state").textContent;
      const reason = row.querySelector(".reason").textContent.trim();
      lines.push([data.trials[number].trial, backend, method, status, choice, ...values, reason]);
    }
    return lines.map((line) => line.map(csvCell).join(",")).join("\r\n");
  };

  const offerCsv = (table) =>
    byId("csv").addEventListener("click", () => {
      const link = document.createElement("a");
      // the mark at the start tells spreadsheets that it is UTF-8
      link.href = URL.createObjectURL(new Blob(["\ufeff", csvOf(table)], { type: "text/csv" }));
      link.download = "trials.csv";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });

  // --- start ------------------------------------------------------------------------------------

  for (const block of all(".command")) {
    const button = element("button", "Copy");
    button.type = "button";
    button.addEventListener("click", async () => {
      const code = block.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
    });
    block.append(button);
  }
  const table = byId("trials-table");
  if (!data || !table) return;
  const rows = [...table.tBodies[0].rows];
  sortable(table, rows);
  const changed = filterable(rows);
  onStates = () => showStates(rows, changed);
  offerCsv(table);
  openForm();
  follow();
  for (const svg of all("svg[data-plot]")) nameMarks(svg);
  for (const hint of all(".hint")) show(hint, true);
})();
