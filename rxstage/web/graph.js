// The picture of the pipeline, and how full it is between the stages.

const NAMES = { "<input>": "input", "<output>": "output", "": "browser" };
const named = (name) => NAMES[name] ?? name;

/** Draws the pipeline and its pressure. */
export class Graph {
  constructor(box, rows) {
    this.box = box;
    this.rows = rows;
    this.lines = new Map();
    this.edges = new Map();
  }

  async load(url) {
    const answer = await fetch(url);
    if (!answer.ok) return;
    // A style element would be inline, which the page forbids itself; a sheet that was made here is not.
    let styles = "";
    const picture = (await answer.text()).replace(/<style>([^<]*)<\/style>/g, (_, style) => {
      styles += style;
      return "";
    });
    const svg = new DOMParser().parseFromString(picture, "image/svg+xml").documentElement;
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(styles);
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    const drawn = document.importNode(svg, true);
    const ends = []; // from the input, and to the output
    for (const edge of drawn.querySelectorAll("g.edge")) {
      const title = edge.querySelector("title");
      if (title) this.edges.set(title.textContent, edge);
      else ends.push(edge);
    }
    [this.first, this.last] = [ends.at(0), ends.at(-1)];
    this.box.replaceChildren(drawn);
  }

  /** Show how full each edge is: source, target, depth, peak, capacity, dropped, whether it keeps others waiting. */
  show(edges) {
    for (const [source, target, depth, peak, capacity, dropped, waiting] of edges) {
      const name = `${named(source)} → ${named(target)}`;
      const share = capacity ? Math.min(1, depth / capacity) : 0;
      const load = dropped ? "lost" : waiting ? "full" : share > 0.5 ? "much" : depth ? "some" : "";
      this.drawn(source, target, name)?.setAttribute("class", `edge ${load}`);
      const line = this.line(name);
      line.load.className = `load ${load}`;
      line.fill.style.width = `${share * 100}%`;
      line.depth.textContent = `${depth}`;
      line.peak.textContent = dropped ? `${peak}, ${dropped} lost` : `${peak}`;
    }
  }

  drawn(source, target, name) {
    if (source === "<input>") return this.first;
    return target === "<output>" ? this.last : this.edges.get(name);
  }

  line(name) {
    let line = this.lines.get(name);
    if (!line) {
      const cell = (tag) => document.createElement(tag);
      const row = cell("tr");
      const head = cell("th");
      head.scope = "row";
      head.textContent = name;
      const middle = cell("td");
      const load = cell("div");
      const bar = cell("div");
      const fill = cell("i");
      const depth = cell("span");
      const peak = cell("td");
      bar.append(fill);
      load.append(bar, depth);
      middle.append(load);
      row.append(head, middle, peak);
      this.rows.append(row);
      line = { load, fill, depth, peak };
      this.lines.set(name, line);
    }
    return line;
  }
}
