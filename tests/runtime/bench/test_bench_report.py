"""The report writes what was measured between two markers, and nothing else of the page changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ramify.runtime.bench import report
from ramify.runtime.bench.plots import draw
from ramify.runtime.errors import InvalidRequest

PAGE = f"# Page\n\nbefore\n\n{report.BEGIN}\nearlier\n{report.END}\n\nafter\n"


def engine(median: float, **more) -> dict:
    spread = {"median": median, "least": median * 0.9, "most": median * 1.1, "runs": 3, "values": []}
    return {**spread, "bound": 1.0, "facts": {}, **more}


RESULT = {
    "bench": "tree",
    "question": "what does it cost?",
    "quick": False,
    "shape": "Qwen3-0.6B",
    "dtype": "bfloat16",
    "date": "2030-01-02",
    "machine": {
        "cpu": "A processor",
        "cores": 2,
        "threads": 2,
        "torch": "2.13.0",
        "read_GBps": [47.1, 46.0],
        "bf16_GFLOPs": [970, 960],
    },
    "ours": "ramify",
    "engines": {
        "ramify": {"about": "Ramify 9", "keeps_prefixes": True},
        "vllm": {"about": "vLLM 9", "keeps_prefixes": True},
    },
    "skipped": {"llama.cpp": "There is no environment build/peers/llama.cpp. `make peers` makes it."},
    "cases": [
        {
            "case": "32 branches",
            "unit": "s",
            "cache": "cold",
            "neighbour_cores": 0.04,
            "engines": {
                "vllm": engine(4.0, ratio={"says": "2.00"}, facts={"prompts_run": 4, "prompts": 32}),
                "ramify": engine(2.0, facts={"computed/unique": 1.0}),
            },
            "failed": {},
        }
    ],
}


def page(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "tree.json").write_text(json.dumps(RESULT))
    place = tmp_path / "docs" / "performance.md"
    place.parent.mkdir()
    place.write_text(PAGE)
    return place


def test_a_report_replaces_what_stands_between_the_markers(tmp_path: Path) -> None:
    place = page(tmp_path)
    for _ in range(2):  # the second one finds the first one's text
        assert report.main([str(tmp_path / "results"), "--page", str(place)]) == 0
        text = place.read_text()
        assert text.startswith(f"# Page\n\nbefore\n\n{report.BEGIN}\n") and text.endswith(f"{report.END}\n\nafter\n")
        assert "earlier" not in text and text.count("### `ramify bench tree`") == 1


def test_a_row_tells_median_spread_share_of_the_bound_and_ratio() -> None:
    text = report.section(RESULT, "")
    assert "| 32 branches (s, cold) | ramify | 2 (1.8 to 2.2) | 50% |  | computed/unique 1.00 | 0.0 |" in text
    assert "|  | vllm | 4 (3.6 to 4.4), scaled up from 4 of 32 prompts | 25% | 2.00 |  |  |" in text
    assert "read at 47.1 to 46.0 GB/s" in text and "Left out: llama.cpp: There is no environment" in text


def test_a_quick_run_is_not_passed_off_as_a_measurement() -> None:
    assert "measures nothing" in report.section({**RESULT, "quick": True}, "")
    assert "measures nothing" not in report.section(RESULT, "")


def test_a_page_without_markers_is_refused() -> None:
    for text in ("nothing", report.END + report.BEGIN, PAGE + report.BEGIN):
        with pytest.raises(InvalidRequest, match="needs one line"):
            report.page_with(text, "new")


def test_a_folder_without_results_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path / "none")]) == 0
    assert "nothing has run" in capsys.readouterr().err
    with pytest.raises(InvalidRequest, match="no results"):
        report.read(tmp_path)


def test_a_plot_is_the_same_picture_for_the_same_result(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pictures = []
    for name in ("a.svg", "b.svg"):
        assert draw(RESULT, tmp_path / name)
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1] and b"32 branches" in pictures[0] and b"vllm" in pictures[0]


def test_a_result_without_bounds_has_no_plot(tmp_path: Path) -> None:
    line = RESULT["cases"][0]
    boundless = {name: {**one, "bound": None} for name, one in line["engines"].items()}
    assert not draw({**RESULT, "cases": [{**line, "engines": boundless}]}, tmp_path / "a.svg")
