#!/usr/bin/python3
"""Puts what bench/measure.sh has measured into the documents, in place of older figures.

  publish.py DIRECTORY ROOT STEP...

DIRECTORY/STEP.md goes between "<!-- measured: STEP -->" and "<!-- end -->" of ROOT/docs/benchmarks.md, its pictures into
ROOT/docs, and the peers' row of the paper's shape into ROOT/README.md.
"""
import pathlib
import re
import shutil
import sys

README_SHAPE = "paper 200 x 100"


def replace(path, block, text):
    document = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- measured: {re.escape(block)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if len(pattern.findall(document)) != 1:
        sys.exit(f'publish: {path} has not one place "<!-- measured: {block} --> ... <!-- end -->"')
    path.write_text(pattern.sub(lambda found: found[1] + text.strip("\n") + "\n" + found[2], document), encoding="utf-8")


def for_readme(peers):
    """Of peers.md the row of one shape on one thread: of its first table, which has times, and its second, of ratios."""
    lines = peers.splitlines()
    machine = next(line for line in lines if line and not line.startswith(" "))
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("|")]
    heads = [row for row in cells if row[0] == "B x H"]
    rows = [row for row in cells if row[0] == README_SHAPE]
    if len(rows) < 2:
        sys.exit(f'publish: peers.md has no "{README_SHAPE}"')
    us = {name: int(text.split("±")[0]) for name, text in zip(heads[0][1:], rows[0][1:])}
    columns = {name.replace(" ", ", "): f"**{time:,}**" for name, time in us.items() if name.startswith("dinserve")}
    columns |= {"ONNX Runtime, tiled as exported": f"{us['ORT tiled']:,}",
                "ONNX Runtime, factored by hand": f"{min(us['ORT split'], us['ORT per candidate']):,}",
                "libtorch": f"{us['libtorch tiled']:,}"}
    prefix = "largest difference of dinserve "
    differences = "".join(f", in {name.removeprefix(prefix)} within {text}" for name, text in zip(heads[1], rows[1])
                          if name.startswith(prefix))
    return (f"200 candidates × 100 behaviours, D = 128, attention 80-40-1, on one core; µs a request.\n{machine}\n\n"
            f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n| {' | '.join(columns.values())} |\n\n"
            f"Same weights, same requests, one run; scores equal within 1e-5{differences}.")


def main(directory, root, steps):
    for step in steps:
        source = directory / f"{step}.md"
        if not source.exists():
            print(f"publish: {step}: not measured ({source}), left as it is")
            continue
        text = source.read_text(encoding="utf-8")
        if "Quick: no measurement" in text:
            sys.exit(f"publish: {source}: of a quick run, which measures nothing")
        replace(root / "docs" / "benchmarks.md", step, text)
        for picture in re.findall(r"\]\(([^)/]+\.svg)\)", text):
            shutil.copy(directory / picture, root / "docs" / picture)
        if step == "peers":
            replace(root / "README.md", "peers", for_readme(text))
        print(f"publish: {step}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:])
