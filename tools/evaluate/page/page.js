"use strict";
// Draws the report that is in the element "data" into the element "report".
// Nothing is fetched, and text comes into the page as text nodes only.
(() => {
  const report = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("report");
  const embeds = report.task === "embedding";
  const KINDS = [
    ["query", "Q"], ["key", "K"], ["value", "V"],
    ["attention_output", "O"], ["ffn_in", "FFN in"], ["ffn_out", "FFN out"]];

  // ---- Elements ----

  const make = (namespace) => (tag, attributes = {}, ...children) => {
    const element = document.createElementNS(namespace, tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== undefined && value !== null) {
        element.setAttribute(name, value);
      }
    }
    element.append(...children.flat().filter((c) => c !== null));
    return element;
  };
  const html = make("http://www.w3.org/1999/xhtml");
  const svg = make("http://www.w3.org/2000/svg");

  // ---- What tells models apart ----

  // Each has a hue and a marker, which repeat together only after 6 · 7 models;
  // lines of one hue have other dashes, too.
  const MARKERS = [  // of radius 1
    "M1 0A1 1 0 1 1-1 0A1 1 0 1 1 1 0Z",  // circle
    "M-.9-.9H.9V.9H-.9Z",                 // square
    "M0-1.2L1.15.8H-1.15Z",               // triangle
    "M0-1.3L1.3 0L0 1.3L-1.3 0Z",         // diamond
    "M0 1.2L1.15-.8H-1.15Z",              // triangle upside down
    "M-.4-1.2H.4V-.4H1.2V.4H.4V1.2H-.4V.4H-1.2V-.4H-.4Z",  // plus
    "M0-.57L.66-1.23 1.23-.66.57 0 1.23.66.66 1.23 0 .57-.66 1.23-1.23.66" +
        "-.57 0-1.23-.66-.66-1.23Z",      // cross
  ];
  const DASHES = [null, "7 4", "2 3", "9 3 2 3"];
  const color = (index) => `var(--series-${index % 6})`;
  const dash = (index) => DASHES[Math.floor(index / 6) % DASHES.length];
  const marker = (index, x, y, radius, title) => svg("path",
      {d: MARKERS[index % MARKERS.length], class: "marker", fill: color(index),
       transform: `translate(${x} ${y}) scale(${radius})`},
      title ? svg("title", {}, title) : null);
  // How a model is drawn, before its name.
  const key = (index) => svg("svg",
      {class: "key", width: 30, height: 14, "aria-hidden": "true"},
      svg("line", {x1: 1, x2: 29, y1: 7, y2: 7, stroke: color(index),
                   "stroke-width": 2, "stroke-dasharray": dash(index)}),
      marker(index, 15, 7, 4.5));

  // ---- Numbers ----

  const isNumber = (value) => typeof value === "number";
  const fixed = (digits) => (value) =>
      isNumber(value) ? value.toFixed(digits) : "–";
  const percent = (value) =>
      isNumber(value) ? `${(100 * value).toFixed(1)} %` : "–";
  const small = (value) => isNumber(value) ? value.toPrecision(3) : "–";
  const scaled = (unit) => (value) => {
    const steps = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
    const [size, prefix] =
        steps.find(([step]) => Math.abs(value) >= step) || steps.at(-1);
    return `${(value / size).toPrecision(3)} ${prefix}${unit}`.trim();
  };
  const count = (value) => value.toLocaleString("en-US");
  // Enough digits to tell a cosine from 1.
  const cosine = (value) => {
    if (!isNumber(value)) return "–";
    const distance = Math.abs(1 - value);
    return value.toFixed(distance >= 0.01 || distance === 0 ? 4 :
        Math.min(8, 3 - Math.floor(Math.log10(distance))));
  };

  const at = (path) => path.split(".").reduce(
      (value, key) => value === null || value === undefined ? null : value[key],
      report);
  // A figure of the report: data-path says which, so that it can be checked.
  const figureOf = (tag, path, format) =>
      html(tag, {"data-path": path}, format(at(path)));

  // ---- Tables ----

  const table = (heads, rows, caption, className) => {
    const head = html("tr", {}, heads.map((name, i) => html(
        "th", {scope: "col", class: name === "Text" ? "text" : null}, name)));
    const body = rows.map(([first, ...rest]) => html("tr", {},
        html("th", {scope: "row"}, first),
        rest.map((cell) => cell instanceof Node ? cell : html("td", {}, cell))));
    return html("div", {class: "scroll", tabindex: 0, role: "region",
                        "aria-label": caption},
        html("table", {class: className},
            html("caption", {}, caption),
            html("thead", {}, head), html("tbody", {}, body)));
  };

  // ---- Plots ----

  let plots = 0;
  const ticks = (low, high, wanted) => {
    const rough = (high - low) / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((s) => s * power >= rough * 0.999) * power;
    const values = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9;
         ++i) {
      values.push(i * step);
    }
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    return values.map((value) => [value, value.toFixed(digits)]);
  };

  // A figure with a title, a plot that is drawn anew for each width, and the
  // same numbers as a table. draw(width) -> [height, elements].
  const figure = ({title, note, summary, draw, data, legend, wide}) => {
    const id = `plot-${++plots}`;
    const place = html("div", {class: "plot"});
    const show = () => {
      const width = Math.floor(place.clientWidth);
      if (width < 50 || width === place.drawnWidth) return;
      place.drawnWidth = width;
      const [height, elements] = draw(width);
      place.replaceChildren(svg("svg",
          {role: "img", width, height, viewBox: `0 0 ${width} ${height}`,
           "aria-labelledby": `${id}-title ${id}-desc`},
          svg("title", {id: `${id}-title`}, title),
          svg("desc", {id: `${id}-desc`}, summary), elements));
    };
    new ResizeObserver(show).observe(place);
    return html("figure", {class: wide ? "wide" : null},
        html("figcaption", {}, html("h3", {}, title),
            note ? html("p", {}, note) : null),
        place, legend || null,
        html("details", {}, html("summary", {}, "As a table"), data));
  };

  const legendOf = (names) => html("ul", {class: "legend"},
      names.map((name, i) => html("li", {}, key(i), name)));

  // Axes and what is to be drawn between them. x and y: {low, high, ticks,
  // label}; fill(toX, toY) -> elements.
  const axes = (width, height, x, y, fill) => {
    const widest = Math.max(...y.ticks.map(([, text]) => text.length));
    const box = {left: 14 + 7 * widest, right: 14, top: 22, bottom: 42};
    const toX = (value) => box.left + (value - x.low) / (x.high - x.low) *
        (width - box.left - box.right);
    const toY = (value) => height - box.bottom - (value - y.low) /
        (y.high - y.low) * (height - box.top - box.bottom);
    const lines = y.ticks.map(([value, text]) => [
      svg("line", {class: "grid", x1: box.left, x2: width - box.right,
                   y1: toY(value), y2: toY(value)}),
      svg("text", {x: box.left - 7, y: toY(value) + 4,
                   "text-anchor": "end"}, text)]);
    const marks = x.ticks.map(([value, text]) => svg("text",
        {x: toX(value), y: height - box.bottom + 17,
         "text-anchor": "middle"}, text));
    return [height, [
      lines.flat(), marks,
      svg("line", {class: "axis", x1: box.left, x2: width - box.right,
                   y1: height - box.bottom, y2: height - box.bottom}),
      svg("text", {x: (box.left + width - box.right) / 2, y: height - 5,
                   "text-anchor": "middle"}, x.label),
      svg("text", {x: 0, y: 11}, y.label),
      fill(toX, toY)].flat()];
  };

  const many = (width) => width < 420 ? 3 : 6;

  const histogram = (model, index) => {
    const {mean, p5, p50, min, histogram: {low, high, counts}} =
        model.embedding.cosine;
    const step = (high - low) / counts.length;
    const most = Math.max(...counts);
    const edges = counts.map((_, i) => [low + i * step, low + (i + 1) * step]);
    const draw = (width) => axes(width, 240,
        {low, high, ticks: ticks(low, high, many(width)), label: "cosine"},
        {low: 0, high: most, ticks: ticks(0, most, 4).filter(
            ([value]) => Number.isInteger(value)), label: "texts"},
        (toX, toY) => [
          counts.map((texts, i) => svg("rect",
              {x: toX(edges[i][0]) + 0.5, y: toY(texts),
               width: Math.max(0.5, toX(edges[i][1]) - toX(edges[i][0]) - 1),
               height: toY(0) - toY(texts), fill: color(index), rx: 1},
              svg("title", {}, `${cosine(edges[i][0])} to ${
                  cosine(edges[i][1])}: ${texts} texts`))),
          // Their names stay apart and inside.
          [["p5", p5, "end"], ["mean", mean, "start"]].map(
              ([name, value, anchor]) => [
            svg("line", {x1: toX(value), x2: toX(value), y1: toY(most) - 6,
                         y2: toY(0), stroke: "var(--ink)",
                         "stroke-dasharray": "3 3"}),
            svg("text", {class: "strong",
                         x: anchor === "end" ? toX(value) - 3 :
                             Math.min(toX(value) + 3, toX(high) - 20),
                         y: toY(most) - 8, "text-anchor": anchor}, name),
          ]).flat(),
        ].flat());
    return figure({
      title: "Cosine with the dense model",
      note: "How many texts have an embedding this close to the dense " +
            "model’s. 1 is the same direction.",
      summary: `Histogram of the cosine of ${report.texts.count} texts: mean ` +
               `${cosine(mean)}, median ${cosine(p50)}, 5th percentile ` +
               `${cosine(p5)}, least ${cosine(min)}.`,
      draw,
      data: table(["from", "to", "texts"], counts.map((texts, i) =>
          [cosine(edges[i][0]), cosine(edges[i][1]), count(texts)])
          .filter(([, , texts]) => texts !== "0"),
          "Texts by cosine; empty bins are left out"),
    });
  };

  const layerErrors = () => {
    const names = report.models.map((model) => model.name);
    const all = report.models.map((model) => model.layer_errors);
    const layers = all[0].length - 1;
    const most = Math.max(1e-9, ...all.flat().filter(isNumber)) * 1.05;
    const name = (i) => i === 0 ? "embeddings" : `layer ${i}`;
    const draw = (width) => axes(width, 260,
        {low: 0, high: layers, label: "after layer (0: embeddings)",
         ticks: ticks(0, layers, Math.min(layers, many(width) * 2))
             .filter(([value]) => Number.isInteger(value))},
        {low: 0, high: most, ticks: ticks(0, most, 5),
         label: "relative error"},
        (toX, toY) => all.map((errors, m) => [
          svg("polyline",
              {points: errors.map((e, i) => isNumber(e) ?
                   `${toX(i)},${toY(e)}` : "").join(" "),
               fill: "none", stroke: color(m), "stroke-width": 2,
               "stroke-dasharray": dash(m)}),
          errors.map((e, i) => isNumber(e) ? marker(m, toX(i), toY(e), 4,
              `${names[m]}, ${name(i)}: ${small(e)}`) : null),
        ]).flat(2));
    return figure({
      title: "Error of the hidden states",
      note: "Root mean square of the difference after each layer, relative " +
            "to the dense model’s states; errors of earlier layers are in " +
            `it. On ${count(report.layer_error_texts)} texts.`,
      summary: names.map((n, m) => `${n}: ${small(all[m].at(-1))} after the ` +
                                   "last layer").join("; ") + ".",
      draw, wide: true,
      legend: names.length > 1 ? legendOf(names) : null,
      data: table(["", ...names], all[0].map((_, i) =>
          [name(i), ...all.map((errors) => small(errors[i]))]),
          "Relative error after each layer"),
    });
  };

  // One point a model: share of parameters kept against a measure. `whisker`
  // is a second measure, joined to the first by a line.
  const ratioPlot = ({title, note, label, value, whisker, format}) => {
    const points = report.models.map((model, index) =>
        ({name: model.name, x: model.ratio, y: value(model),
          low: whisker ? whisker(model) : null, index}))
        .filter((point) => isNumber(point.y));
    if (points.length < 2) return null;
    const ys = points.flatMap((p) => [p.y, p.low]).filter(isNumber);
    const span = Math.max(...ys) - Math.min(...ys) || Math.abs(ys[0]) || 1;
    const y = {low: Math.min(...ys) - span * 0.08,
               high: Math.max(...ys) + span * 0.08, label};
    const xs = points.map((p) => p.x);
    const room = Math.max(0.05, (Math.max(...xs) - Math.min(...xs)) * 0.15);
    const x = {low: Math.max(0, Math.min(...xs) - room),
               high: Math.max(...xs) + room,
               label: "share of the encoder’s parameters kept"};
    const draw = (width) => axes(width, 280,
        {...x, ticks: ticks(x.low, x.high, many(width))},
        {...y, ticks: ticks(y.low, y.high, 5)},
        (toX, toY) => points.map((p) => [
          isNumber(p.low) ? svg("line",
              {x1: toX(p.x), x2: toX(p.x), y1: toY(p.y), y2: toY(p.low),
               stroke: color(p.index), "stroke-width": 2}) : null,
          isNumber(p.low) ? svg("line",
              {x1: toX(p.x) - 5, x2: toX(p.x) + 5, y1: toY(p.low),
               y2: toY(p.low), stroke: color(p.index),
               "stroke-width": 2}) : null,
          marker(p.index, toX(p.x), toY(p.y), 6,
                 `${p.name}: ${format(p.y)} at ${percent(p.x)}`),
        ]).flat());
    return figure({
      title, note, draw,
      summary: points.map((p) => `${p.name}: ${percent(p.x)} of the ` +
          `parameters, ${format(p.y)}`).join("; ") + ".",
      legend: legendOf(report.models.map((model) => model.name)),
      data: table(["", "parameters kept", label], points.map((p) =>
          [p.name, percent(p.x), format(p.y)]), title),
    });
  };

  // How many values hold this share of the sum of squares.
  const holding = (values, share) => {
    const squares = values.map((v) => v * v);
    const whole = squares.reduce((a, b) => a + b, 0);
    let sum = 0;
    return 1 + squares.findIndex((v) => (sum += v) >= share * whole);
  };

  // One kind of matrix, a line a layer; where one model is reported, a dot
  // where it cut.
  const spectrum = (kind, name) => {
    const lines = (report.dense.spectra || []).filter((s) =>
        s.kind === kind && s.values[0] > 0);
    if (lines.length === 0) return null;
    const heights = lines.map(({values}) => values.map((v) => Math.log10(
        Math.max(v / values[0], 1e-4))));
    const cuts = lines.map(({layer}) => report.models.length > 1 ? 0 :
        report.models[0].layers[layer][kind].rank);
    const size = lines[0].values.length;
    const low = Math.floor(Math.min(-1, ...heights.map((h) => h.at(-1))));
    const powers = Array.from({length: -low + 1}, (_, i) =>
        [-i, i === 0 ? "1" : `1e-${i}`]);
    const draw = (width) => axes(width, 190,
        {low: 0, high: size, label: "index", ticks: ticks(0, size, 4)},
        {low, high: 0, ticks: powers, label: "relative to the largest"},
        (toX, toY) => heights.map((line, i) => [
          svg("polyline",
              {points: line.map((v, k) => `${toX(k + 1).toFixed(1)},${
                   toY(v).toFixed(1)}`).join(" "),
               fill: "none", stroke: color(0), "stroke-width": 1.5,
               "stroke-opacity": 0.25 + 0.75 * (i + 1) / heights.length},
              svg("title", {}, `layer ${lines[i].layer + 1}`)),
          cuts[i] > 0 && cuts[i] <= size ? svg("circle",
              {cx: toX(cuts[i]), cy: toY(line[cuts[i] - 1]), r: 3,
               fill: color(1)}, svg("title", {},
                   `layer ${lines[i].layer + 1}: rank ${cuts[i]}`)) : null,
        ]).flat());
    return figure({
      title: name, draw,
      summary: `Singular values of the ${name} matrices of ${lines.length} ` +
               `layers, ${size} each, from largest to smallest.`,
      data: table(["", "values", "hold 90 %", "hold 99 %"],
          lines.map(({layer, values}) => [
            `layer ${layer + 1}`, count(values.length),
            count(holding(values, 0.9)), count(holding(values, 0.99))]),
          "How many values hold 90 and 99 % of the sum of squares"),
    });
  };

  const spectra = () => {
    const all = KINDS.map(([kind, name]) => spectrum(kind, name))
        .filter((f) => f !== null);
    if (all.length === 0) return null;
    return html("section", {}, html("h2", {}, "Spectra"),
        html("p", {class: "soft"}, "Singular values of the dense model’s " +
            "matrices, a line a layer, later layers stronger: the faster " +
            "they fall, the less a low rank loses." +
            (report.models.length > 1 ? "" : " Dots are the ranks kept.")),
        html("div", {class: "small-multiples"}, all));
  };

  const ranks = (model) => {
    const rows = model.layers.map((layer, i) => [`${i + 1}`,
      ...KINDS.map(([kind, name]) => {
        const matrix = layer[kind];
        const dense = report.dense.layers[i][kind];
        const share = matrix.parameters / (dense.in * dense.out);
        const resized = matrix.in !== dense.in || matrix.out !== dense.out;
        const rank = matrix.rank || "dense";
        const size = `${matrix.in}×${matrix.out}`;
        const said = ((model.compression || {}).matrices || []).find(
            (m) => m.layer === i && m.kind === kind) || {};
        const error = said.output_error ?? said.weight_error;
        return html("td",
            {style: `background:rgb(var(--heat) / ${
                 (0.06 + 0.5 * Math.min(1, share)).toFixed(3)})`,
             title: `layer ${i + 1}, ${name}: ${size}, rank ${rank}, ${
                 percent(share)} of the parameters${
                 isNumber(error) ? `, relative error ${small(error)}` : ""}`},
            `${rank}`, html("small", {}, resized ? size :
                `${(100 * share).toFixed(0)} %`));
      })]);
    return html("figure", {class: embeds ? null : "wide"},
        html("figcaption", {}, html("h3", {}, "Ranks"),
            html("p", {}, "Rank of each matrix and the share of its " +
                "parameters that is kept; a stronger colour keeps more.")),
        table(["Layer", ...KINDS.map(([, name]) => name)], rows,
              "Ranks by layer and matrix", "heat"));
  };

  // ---- Sections ----

  const MEASURES = embeds ? [
    ["Mean cosine", "embedding.cosine.mean", cosine],
    ["5th percentile", "embedding.cosine.p5", cosine],
    ["Least cosine", "embedding.cosine.min", cosine],
    ["Recall@1", "embedding.neighbours.recall_at_1", percent],
    ["Recall@10", "embedding.neighbours.recall_at_10", percent],
    ["Spearman", "embedding.similarities.spearman", fixed(4)],
  ] : [
    ["Same label", "classification.argmax_agreement", percent],
    ["Spearman of scores", "classification.score_spearman", fixed(4)],
    ["Mean logit error", "classification.mean_logit_error", small],
    ["Largest logit error", "classification.max_logit_error", small],
  ];
  const COSTS = [
    ["Parameters", "parameters", scaled("")],
    ["Files", "file_bytes", scaled("B")],
    ["FLOPs/token", "flops_per_token", scaled("")],
    ["Activations/token", "activation_bytes_per_token", scaled("B")],
  ];
  // Measures that some model has.
  const measures = MEASURES.filter(([, path]) =>
      report.models.some((_, i) => isNumber(at(`models.${i}.${path}`))));

  const header = () => {
    const {source, count: texts, tokens, truncated, max_tokens: longest} =
        report.texts;
    const cut = truncated > 0 ? ` ${count(truncated)} of them were cut to ` +
        `${longest} tokens, the longest input.` : "";
    return html("header", {},
        html("h1", {}, `Fidelity of ${report.models.length > 1 ?
            "compressed models" : report.models[0].name}`),
        html("p", {class: "soft"}, `Against ${report.dense.name} on ` +
            `${count(texts)} texts (${count(tokens)} tokens) of ${source}.` +
            cut),
        report.models.length > 1 ? html("nav", {"aria-label": "Models"},
            report.models.map((model, i) => html("a", {href: `#model-${i}`},
                key(i), model.name))) : null);
  };

  const cards = () => html("div", {class: "cards"},
      html("div", {class: "card"}, figureOf("b", "models.0.ratio", percent),
          html("span", {}, "of the encoder’s parameters")),
      measures.map(([name, path, format]) => html("div", {class: "card"},
          figureOf("b", `models.0.${path}`, format),
          html("span", {}, name))));

  const comparison = () => {
    const cost = (path, format, base) => [
      figureOf("td", `${base}.${path}`, format)];
    const rows = [[report.dense.name,
      figureOf("td", "dense.encoder_matrix_parameters", () => "100.0 %"),
      ...measures.map(() => "–"),
      ...COSTS.map(([, path, format]) => cost(path, format, "dense")).flat()],
    ...report.models.map((model, i) => [model.name,
      figureOf("td", `models.${i}.ratio`, percent),
      ...measures.map(([, path, format]) =>
          figureOf("td", `models.${i}.${path}`, format)),
      ...COSTS.map(([, path, format]) =>
          cost(path, format, `models.${i}`)).flat()])];
    const {inputs, tokens} = report.cost_batch;
    return html("figure", {style: "margin-top:24px"},
        table(["Model", "Kept", ...measures.map(([name]) => name),
               ...COSTS.map(([name]) => name)], rows,
              report.models.length > 1 ? "All models side by side" :
                  "Beside the dense model"),
        html("p", {class: "soft", style: "font-size:13px"},
            "Kept: of the parameters of the encoder’s matrices. FLOPs: with " +
            `attention over ${tokens} tokens. Activations: as planned for ` +
            `${inputs} such inputs on an H100 in 16 bits.` +
            (embeds ? ` Recall: of ${count(
                report.models[0].embedding.neighbours.queries)} texts’ ` +
                "nearest neighbours among all. Spearman: of the " +
                `similarities of ${count(
                    report.models[0].embedding.similarities.pairs)} pairs` +
                `${report.models[0].embedding.similarities.sampled ?
                    ", drawn at random" : ""}.` : "")));
  };

  const ratios = () => embeds ? [
    ratioPlot({title: "Size and cosine", label: "cosine", format: cosine,
               note: "Mean cosine with the dense model; the line reaches " +
                     "down to the 5th percentile.",
               value: (m) => m.embedding.cosine.mean,
               whisker: (m) => m.embedding.cosine.p5}),
    ratioPlot({title: "Size and neighbours", label: "recall@10",
               note: "Share of the ten nearest neighbours that stay.",
               format: percent,
               value: (m) => m.embedding.neighbours.recall_at_10}),
  ] : [
    ratioPlot({title: "Size and labels", label: "same label", format: percent,
               note: "Share of texts with the dense model’s label.",
               value: (m) => m.classification.argmax_agreement}),
    ratioPlot({title: "Size and logits", label: "mean logit error",
               note: "Mean difference of a logit from the dense model’s.",
               format: small,
               value: (m) => m.classification.mean_logit_error}),
  ];

  // What compression.json says beside matrices, one line a value.
  const facts = (model) => {
    if (model.compression === null) {
      return html("p", {class: "soft"}, "Has no compression.json: how it was " +
          "made is not known.");
    }
    const lines = [];
    const add = (key, value) => {
      if (value !== null && typeof value === "object") {
        for (const [inner, v] of Object.entries(value)) {
          if (isNaN(inner)) add(`${key} ${inner}`.trim(), v);
        }
      } else if (lines.length < 60) {
        const text = isNumber(value) && !Number.isInteger(value) ?
            `${Number(value.toPrecision(4))}` :
            isNumber(value) ? count(value) : `${value}`;
        lines.push(html("div", {},
            html("dt", {}, key.replaceAll("_", " ")), html("dd", {}, text)));
      }
    };
    for (const [key, value] of Object.entries(model.compression)) {
      if (!["matrices", "ranks"].includes(key)) add(key, value);
    }
    return html("figure", {class: "wide"}, html("figcaption", {},
        html("h3", {}, "How it was compressed")), html("dl", {}, lines));
  };

  const worst = (model) => {
    const labelled = report.labels.length > 1;
    const heads = ["No.", embeds ? "Cosine" : "Error",
                   ...(labelled ? ["Dense", "Compressed"] : []), "Text"];
    const rows = model.worst.map((w) => [`${w.number}`,
      embeds ? cosine(w.cosine) : small(w.max_logit_error),
      ...(labelled ? [w.dense_label, w.compressed_label] : []),
      html("td", {class: "text", dir: "auto"}, w.text)]);
    return html("figure", {class: "wide"}, html("figcaption", {},
        html("h3", {}, "Texts that changed most")),
        table(heads, rows, embeds ? "Least cosine first" :
            "Largest error of a logit first", "worst"));
  };

  const section = (model, index) => html("section", {id: `model-${index}`},
      html("h2", {}, key(index), model.name),
      html("div", {class: "plots"},
          embeds ? histogram(model, index) : null, ranks(model),
          facts(model), worst(model)));

  document.title = `Fidelity: ${report.models.map((m) => m.name).join(", ")}`;
  const compared = [...ratios(), layerErrors()].filter((f) => f !== null);
  root.replaceChildren(header(),
      ...(report.models.length === 1 ? [cards()] : []), comparison(),
      html("div", {class: "plots"}, compared),
      ...report.models.map(section),
      ...[spectra()].filter((f) => f !== null));
})();
