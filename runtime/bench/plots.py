"""The share of the bound that each engine reached, a group of bars a case, as SVG."""

# pyright: reportMissingImports=false
from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

from ..console import say
from .runner import share_of_bound

PALETTE = ("#3b6fb6", "#d9822b", "#5a9e6f", "#a2559c", "#8c8c8c", "#c0504d")


def draw(result: dict[str, Any], place: Path) -> bool:
    """Write the picture. False, with a word, where matplotlib is not installed or no case has a bound. The same result gives
    the same bytes."""
    lines = [line for line in result["cases"] if any(one.get("bound") for one in line["engines"].values())]
    if not lines:
        return False
    try:
        import matplotlib
    except ImportError:
        say("Plots need matplotlib: pip install 'ramify[bench]'. The tables are written without them.")
        return False
    matplotlib.use("svg")
    from matplotlib import pyplot

    names = list(result["engines"])
    height = 0.9 + len(lines) * (0.22 * len(names) + 0.25)
    with matplotlib.rc_context({"svg.hashsalt": result["bench"], "svg.fonttype": "none", "font.size": 9}):
        canvas, axes = pyplot.subplots(figsize=(8, height), layout="constrained")
        width = 0.8 / len(names)
        for number, name in enumerate(names):
            at, shares = [], []
            for group, line in enumerate(lines):
                if name in line["engines"]:
                    at.append(group + (number - (len(names) - 1) / 2) * width)
                    shares.append(share_of_bound(line["unit"], line["engines"][name]))
            bars = axes.barh(at, shares, height=width * 0.92, label=name, color=PALETTE[number % len(PALETTE)])
            axes.bar_label(bars, [f"{one:.0%}" for one in shares], padding=2, fontsize=7)
        axes.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
        axes.set_yticks(range(len(lines)), [fill(line["case"], 40) for line in lines])
        axes.invert_yaxis()
        axes.set_xlabel("share of the bound (1 is the best this machine allows)")
        axes.spines[["top", "right"]].set_visible(False)
        canvas.legend(loc="outside upper center", ncols=len(names), frameon=False, fontsize=8)
        place.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(place, format="svg", metadata={"Date": None})
        pyplot.close(canvas)
    return True
