#!/usr/bin/python3
"""Figures as SVG pictures and Markdown tables; needs nothing but Python.

  plot.py scaling DIRECTORY OUT     pairs.csv, rows.csv, models.csv, memory.csv of scaling_bench -> OUT/scaling-*.svg, tables
  plot.py stages REPORT.json...     tables of what kernel_bench and model_bench wrote with --benchmark_out
  plot.py small REPORT.json         what small requests take beyond their kernels, from model_bench's repetitions of score,
                                    kernels, parse, decode, rank and encode
  plot.py sweep REPORT.json OUT.svg the latency-throughput curve of `din-load --sweep ... --json REPORT.json`; exit code 3:
                                    there is none, since no run was valid
  plot.py max REPORT.json...        what `din-load --find-max ... --json REPORT.json` found, one after the other
"""
import csv
import html
import json
import math
import pathlib
import statistics
import sys

COLOURS = ["#1f9d8a", "#3b76d6", "#e07b1a", "#b8438f", "#6b7280", "#8a6d1f"]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 440, 72, 24, 84, 52


def number(value):
    """1234 -> "1,234", 1e7 -> "10⁷", 0.0021 -> "0.0021"."""
    if value >= 1e4 and abs(math.log10(value) - round(math.log10(value))) < 1e-9:
        return "10" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(d)] for d in str(round(math.log10(value))))
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class Axis:
    """From values to pixels; logarithmic, or linear from zero."""

    def __init__(self, values, begin, end, logarithmic):
        self.begin, self.end, self.logarithmic = begin, end, logarithmic
        low, high = min(values), max(values)
        if logarithmic:
            self.low, self.high = math.log10(low) - 0.03, math.log10(high) + 0.03
            step = [1] if self.high - self.low > 2.5 else [1, 2, 5]
            exponents = range(math.floor(self.low) - 1, math.ceil(self.high) + 1)
            self.ticks = [m * 10.0**e for e in exponents for m in step]
        else:
            self.low, self.high = 0, high * 1.05
            step = 10 ** math.floor(math.log10(high))
            step = next(s for s in (step / 5, step / 2, step, step * 2) if high / s <= 6)
            self.ticks = [step * i for i in range(int(self.high / step) + 1)]
        self.ticks = [t for t in self.ticks if self.low <= self.position(t) <= self.high]

    def position(self, value):
        return math.log10(value) if self.logarithmic else value

    def pixel(self, value):
        return self.begin + (self.position(value) - self.low) / (self.high - self.low) * (self.end - self.begin)


def draw(path, title, subtitle, series, x_name, y_name, x_log=True, y_log=True):
    """`series`: name -> [(x, y)]."""
    points = [point for line in series.values() for point in line]
    x_axis = Axis([x for x, _ in points], LEFT, WIDTH - RIGHT, x_log)
    y_axis = Axis([y for _, y in points], HEIGHT - BOTTOM, TOP, y_log)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           'font-family="system-ui, DejaVu Sans, sans-serif" font-size="13">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']

    def text(x, y, what, anchor="middle", colour="#5d6878", more=""):
        out.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{more}>'
                   f"{html.escape(what)}</text>")

    text(LEFT, 24, title, "start", "#1c2430", ' font-size="16" font-weight="600"')
    text(LEFT, 43, subtitle, "start")
    key = LEFT
    for colour, name in zip(COLOURS, series):
        out.append(f'<rect x="{key}" y="58" width="14" height="4" rx="2" fill="{colour}"/>')
        text(key + 20, 65, name, "start")
        key += 42 + 6.8 * len(name)
    for tick in y_axis.ticks:
        y = y_axis.pixel(tick)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e8ed"/>')
        text(LEFT - 8, y + 4, number(tick), "end")
    for tick in x_axis.ticks:
        x = x_axis.pixel(tick)
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 5}" stroke="#9aa3ae"/>')
        text(x, HEIGHT - BOTTOM + 20, number(tick))
    out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}" stroke="#9aa3ae"/>')
    text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_name)
    text(0, 0, y_name, more=f' transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"')
    for colour, line in zip(COLOURS, series.values()):
        places = [(x_axis.pixel(x), y_axis.pixel(y)) for x, y in sorted(line)]
        path_of = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        out.append(f'<polyline points="{path_of}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
    path.write_text("\n".join(out) + "\n</svg>\n", encoding="utf-8")


def read(path):
    series = {}
    with open(path, encoding="utf-8") as file:
        # A series' name may hold a comma.
        for *name, x, y in csv.reader(file):
            series.setdefault(",".join(name), []).append((float(x), float(y)))
    return series


def table(head, series, scale=number):
    """One row for each x, one column for each series."""
    xs = sorted({x for line in series.values() for x, _ in line})
    print(f"\n| {head} | " + " | ".join(series) + " |\n|---" * 1 + "|---" * len(series) + "|")
    for x in xs:
        cells = [next((scale(y) for at, y in line if at == x), "") for line in series.values()]
        print(f"| {number(x)} | " + " | ".join(cells) + " |")


def scaling(directory, out):
    pairs = read(directory / "pairs.csv")
    draw(out / "scaling-pairs.svg", "Time of a request against candidates x behaviours", "one core; both axes logarithmic",
         pairs, "candidates x behaviours", "microseconds")
    table("candidates x behaviours, us", pairs)

    rows = read(directory / "rows.csv")
    draw(out / "scaling-rows.svg", "Time of a request against the rows of the item table",
         "200 candidates x 100 behaviours, F16 rows of 64, random ids", rows, "rows", "microseconds")
    table("rows, us", rows)

    models = read(directory / "models.csv")
    draw(out / "scaling-models.svg", "Time of a request against the models that take turns",
         "one core; each request goes to the next model", models, "models", "microseconds")
    table("models, us", models)

    memory = read(directory / "memory.csv")
    resident = {name.split(", ")[1]: line for name, line in memory.items() if name.startswith("resident")}
    seconds = {name.split(", ")[1]: line for name, line in memory.items() if name.startswith("seconds")}
    draw(out / "scaling-memory.svg", "Memory of a loaded model against the rows of its item table",
         "F16 rows of 64 (128 bytes); both axes linear", resident, "rows", "megabytes", x_log=False, y_log=False)
    table("rows, MB", resident)
    table("rows, s to load", seconds, lambda y: f"{y:.2f}")
    for name, line in resident.items():
        (x0, y0), (x1, y1) = min(line), max(line)
        if x1 > x0:
            print(f"\n{name}: {(y1 - y0) / (x1 - x0) * 1e6:.0f} MB per million rows")
    for what, name in (("pairs", "time against pairs"), ("rows", "time against table rows"),
                       ("models", "time against models"), ("memory", "memory against table rows")):
        print(f"\n![{name}](scaling-{what}.svg)")


def stages(reports):
    """One table of whole requests for each instruction set, and one of the stages."""
    rows, context, peaks = {}, {}, {}
    for report in reports:
        if not report.exists() or not report.stat().st_size:
            continue  # an instruction set that this CPU has not
        data = json.loads(report.read_text(encoding="utf-8"))
        context.update(data["context"])
        isa = data["context"]["instruction set"]
        for name, rate in data["context"].items():
            if name.startswith("limit: multiply-add, "):
                precision = name.split(", ")[1]
                peaks.setdefault(isa if precision == "fp32" else f"{isa}-{precision}", rate)
        for entry in data["benchmarks"]:
            name = entry["name"].removesuffix("/manual_time")
            if "error_occurred" in entry:
                sys.exit(f"{name}: {entry['error_message']}")
            entry["us"] = entry["real_time" if name != entry["name"] else "cpu_time"]
            rows[name] = entry
    print(f'oneDNN {context["oneDNN"]}; sigmoids {context["limit: sigmoid"]}; read from L1, L2, memory '
          f'{context["limit: read L1, L2, memory"]}; AMX bf16 {context["limit: AMX bf16"]}')
    for variant in dict.fromkeys(name.split("/")[-1] for name in rows if name.startswith("score/")):
        names = [f"{model}{what}" for model in ("paper", "compact")
                 for what in ("", ", looked up", ": peak", ": limit", ": error")]
        print(f"\n{variant}, microseconds a request; multiply-adds {peaks[variant]}:\n\n| B x H | " + " | ".join(names)
              + " |\n" + "|---" * 11 + "|")
        for shape in [n.split("/")[2] for n in rows if n.startswith("score/paper/") and n.endswith("/" + variant)]:
            cells = []
            for model in ("paper", "compact"):
                dense = rows.get(f"score/{model}/{shape}/{variant}")
                gather = rows.get(f"score_gather/{model}/{shape}/{variant}")
                cells += [number(dense["us"]) if dense else "", number(gather["us"]) if gather else ""]
                cells += [f'{dense["peak"]:.0%}', f'{dense["limit"]:.0%}', f'{dense["error"]:.0e}'] if dense else [""] * 3
            print(f'| {shape.replace("x", " x ")} | ' + " | ".join(cells) + " |")
    print("\n| stage | us | per second | peak | limit |\n|---|---|---|---|---|")
    for name, entry in rows.items():
        if not name.startswith(("score/", "score_gather/")):
            rate = next((f"{number(entry[unit] / 1e6)} M {unit[:-2]}" for unit in entry
                         if unit.endswith("/s") and unit not in ("FLOP/s", "bytes/s")), "")
            shares = [f"{entry[share]:.0%}" if share in entry else "" for share in ("peak", "limit")]
            print(f'| {name} | {number(entry["us"])} | {rate} | ' + " | ".join(shares) + " |")


def small(report):
    data = json.loads(report.read_text(encoding="utf-8"))
    us = {}
    for entry in sorted(data["benchmarks"], key=lambda entry: entry["family_index"]):
        if "error_occurred" in entry:
            sys.exit(f"{entry['name']}: {entry['error_message']}")
        if entry["run_type"] == "iteration":
            us.setdefault(tuple(entry["name"].split("/")), []).append(entry["cpu_time"])

    def noise(values):
        values = sorted(values)
        return (values[len(values) * 3 // 4] - values[len(values) // 4]) / 2

    def spread(values):
        return f"{statistics.median(values):.2f} ± {noise(values):.2f}"

    isa = data["context"]["instruction set"]
    wire = ("parse", "decode", "rank", "encode")
    print("Microseconds of CPU, median and half the distance of the quartiles of "
          f"{max(map(len, us.values()))} repetitions in random order.\n\n"
          "| B x H | score | its kernels alone | beyond them | " + " | ".join(wire) + " | all but the kernels |\n"
          + "|---" * (5 + len(wire)) + "|")
    for stage, model, shape, variant in us:
        if stage != "score":
            continue
        score, kernels = us["score", model, shape, variant], us["kernels", model, shape, variant]
        beyond = statistics.median(score) - statistics.median(kernels)
        around = [statistics.median(us[stage, model, shape, isa]) for stage in wire]
        precision = variant.removeprefix(isa).removeprefix("-") or "fp32"
        print(f'| {model} {shape.replace("x", " x ")}, {precision} | {spread(score)} | {spread(kernels)} | '
              f"{beyond:.2f} ± {noise(score) + noise(kernels):.2f} | "
              + " | ".join(f"{time:.2f}" for time in around) + f" | {beyond + sum(around):.2f} |")


def sweep(report, out):
    data = json.loads(report.read_text(encoding="utf-8"))
    runs = [run for run in data["runs"] if run["valid"]]
    if not runs:
        print(f"{report}: no run is valid: the generator was late in all of them", file=sys.stderr)
        sys.exit(3)
    series = {label: [(run["offered_rate"], run["latency_us"][member] / 1e3) for run in runs]
              for label, member in (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p99.9", "p999"))}
    asked = data["requests"]
    draw(out, "Latency against throughput",
         f'{asked["mean_candidates"]:.0f} candidates x {asked["mean_behaviours"]:.0f} behaviours, '
         f'{data["load"]["arrivals"]} arrivals, {data["machine"]["cores"]} cores shared with the generator',
         series, "requests per second", "milliseconds", x_log=False)


def maxima(reports):
    found = [json.loads(report.read_text(encoding="utf-8")) for report in reports]
    rates = [report["max"]["rate"] for report in found]
    print(f'Highest rate with {found[0]["objective"]["text"]}, {found[0]["requests"]["mean_candidates"]:.0f} candidates x '
          f'{found[0]["requests"]["mean_behaviours"]:.0f} behaviours, one connection, {found[0]["machine"]["cores"]} cores '
          f'shared with the generator: {", ".join(f"{rate:,.0f}" for rate in rates)} requests/s.')
    if min(rates) > 0:
        print(f"The largest is {max(rates) / min(rates) - 1:.0%} above the smallest.")
    for bound in sorted({report["max"]["bounded_by"] for report in found} - {"the objective"}):
        print(f"Bounded by {bound}.")


if __name__ == "__main__":
    if len(sys.argv) >= 3 and sys.argv[1] == "stages":
        stages([pathlib.Path(argument) for argument in sys.argv[2:]])
    elif len(sys.argv) == 3 and sys.argv[1] == "small":
        small(pathlib.Path(sys.argv[2]))
    elif len(sys.argv) == 4 and sys.argv[1] == "scaling":
        scaling(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
    elif len(sys.argv) == 4 and sys.argv[1] == "sweep":
        sweep(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
    elif len(sys.argv) >= 3 and sys.argv[1] == "max":
        maxima([pathlib.Path(argument) for argument in sys.argv[2:]])
    else:
        sys.exit(__doc__)
