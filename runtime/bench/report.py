"""Question: what did the benchmarks say? Writes their tables and plots into docs/performance.md.

Reads NAME.json of the scenarios that ran with `--out FOLDER`, and replaces what stands between the two markers of the page.
Plots need matplotlib (`pip install 'ramify[bench]'`); without it there are tables alone.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..console import say
from ..errors import InvalidRequest
from .plots import draw
from .runner import share_of_bound

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
Result = dict[str, Any]


def read(folder: Path) -> list[Result]:
    """The results of a folder, each with its file's name. Raises InvalidRequest where there are none."""
    found = [{**json.loads(file.read_text(encoding="utf-8")), "name": file.stem} for file in sorted(folder.glob("*.json"))]
    found = [one for one in found if isinstance(one.get("cases"), list) and "engines" in one]
    if not found:
        raise InvalidRequest(f"There are no results in {folder}. Run `ramify bench NAME --out {folder}` first.")
    return found


def figure(value: float) -> str:
    """Three digits that say something. Pure."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def cell(line: Result, name: str) -> str:
    """Median (least to most) of one engine in one case, or why it has none. Pure."""
    one = line["engines"].get(name)
    if one is None:
        return "-"
    text = f"{figure(one['median'])} ({figure(one['least'])} to {figure(one['most'])})"
    if "prompts_run" in one["facts"]:
        text += f", scaled up from {one['facts']['prompts_run']} of {one['facts']['prompts']} prompts"
    return text


def counts(one: Result) -> str:
    """Shares of computed tokens. Pure."""
    found = [f"{name} {value:.2f}" for name, value in one.get("facts", {}).items() if name.startswith("computed/")]
    return ", ".join(found)


def rows_of(result: Result) -> list[Sequence[str]]:
    """A row a case and engine, ours first. Pure."""
    rows = []
    for line in result["cases"]:
        names = [result["ours"], *(name for name in result["engines"] if name != result["ours"])]
        for name in names:
            one = line["engines"].get(name)
            if one is None:
                continue
            share = share_of_bound(line["unit"], one)
            begins = name == result["ours"]
            rows.append(
                (
                    f"{line['case']} ({line['unit']}, {line['cache']})" if begins else "",
                    name,
                    cell(line, name),
                    f"{share:.0%}" if share is not None else "",
                    one["ratio"]["says"] if "ratio" in one else "",
                    counts(one),
                    f"{line['neighbour_cores']:.1f}" if begins else "",
                )
            )
    return rows


def section(result: Result, plot: str) -> str:
    """One scenario: its question, where and when, a table. plot: the picture's path as the page sees it, or "". Pure."""
    machine = result["machine"]
    reads, products = (" to ".join(map(str, machine[name])) for name in ("read_GBps", "bf16_GFLOPs"))
    where = f"{machine['cores']} cores of {machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}"
    head = ("case (unit, cache)", "engine", "median (least to most)", "of the bound", f"{result['ours']} better by")
    table = [(*head, "tokens", "others' cores"), ("---",) * 7, *rows_of(result)]
    question = result["question"][:1].upper() + result["question"][1:]
    parts = [
        f"### `ramify bench {result['bench']}`",
        question,
        f"{result['date']}, {result['shape']}'s sizes, {result['dtype']}, {where}; before and after, memory was read at "
        f"{reads} GB/s and matrix products ran at {products} GFLOP/s.",
        "\n".join(f"| {' | '.join(row)} |" for row in table),
        "Engines: " + "; ".join(f"{name} is {one['about']}" for name, one in result["engines"].items()) + ".",
    ]
    gone = {**result["skipped"]}
    for line in result["cases"]:
        gone |= {f"{name} in \"{line['case']}\"": why for name, why in line["failed"].items()}
    if gone:
        parts.append("Left out: " + "; ".join(f"{name}: {why.strip().splitlines()[0]}" for name, why in gone.items()) + ".")
    if result["quick"]:
        parts.insert(1, "A quick run on a tiny model: it shows that the benchmark works, and measures nothing.")
    if plot:
        parts.append(f"![{result['bench']}: share of the bound that each engine reached]({plot})")
    return "\n\n".join(parts)


def page_with(text: str, block: str) -> str:
    """The page with what stands between its markers replaced. Pure. Raises InvalidRequest unless they are there once each."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise InvalidRequest(f"The page needs one line {BEGIN} and after it one line {END}.")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{after}"


def main(argv: list[str]) -> int:
    """Write the page. Says what was written."""
    parser = argparse.ArgumentParser(prog="ramify bench report", description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=Path("build/bench"), help="folder (default: build/bench)")
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"))
    parser.add_argument("--plots", type=Path, default=None, help="folder for plots (default: `bench` beside the page)")
    said = parser.parse_args(argv)
    if not said.results.is_dir():
        say(f"{said.results} is no folder: nothing has run with `--out {said.results}` yet, so there is nothing to report.")
        return 0
    results = read(said.results)
    if not said.page.is_file():
        raise InvalidRequest(f"There is no page {said.page}. Run this in the repository, or name it with --page.")
    plots = said.plots or said.page.parent / "bench"
    sections = []
    for result in results:
        place = plots / f"{result['name']}.svg"
        drawn = draw(result, place)
        sections.append(section(result, os.path.relpath(place, said.page.parent) if drawn else ""))
    said.page.write_text(page_with(said.page.read_text(encoding="utf-8"), "\n\n".join(sections)), encoding="utf-8")
    say(f"{len(results)} scenarios are in {said.page}.")
    return 0
