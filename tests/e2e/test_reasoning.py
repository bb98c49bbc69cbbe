"""A chat template that drops earlier reasoning: each turn pays from the last unchanged message on, and says so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

import ramify as sgl
from ramify.runtime.bundled import MODEL_DIR

pytestmark = pytest.mark.timeout(300)
TURNS = 5
# As Qwen3's template does: of an assistant turn that a user's turn follows only what comes after its reasoning is rendered.
KEEPS_ALL = "{%- set content = text(message.content) -%}"
DROPS_REASONING = """
{%- set content = text(message.content) -%}
{%- if message.role == 'assistant' and loop.index0 < last.user and '</think>' in content -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
"""
FINDS_LAST_USER = """
{%- set last = namespace(user=0) -%}
{%- for message in messages -%}{%- if message.role == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}{%- endfor -%}
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Iterator[sgl.Engine]:
    folder = tmp_path_factory.mktemp("model") / "thinker"
    shutil.copytree(MODEL_DIR, folder)
    template = (MODEL_DIR / "chat_template.jinja").read_text(encoding="utf-8")
    assert KEEPS_ALL in template
    dropping = FINDS_LAST_USER + template.replace(KEEPS_ALL, DROPS_REASONING)
    (folder / "chat_template.jinja").write_text(dropping, encoding="utf-8")
    with sgl.Engine(str(folder), in_process=True, threads=1, kv_tokens=8192, dtype="float32") as started:
        yield started


def tokens_in(engine: sgl.Engine, text: str) -> int:
    return engine.generate(text, {"max_new_tokens": 0})["meta_info"]["prompt_tokens"]


def question(turn: int) -> str:
    return f"Town number {turn} is Harbour {turn}."


@sgl.function
def thinking(s):
    s += sgl.system("You are a helpful assistant.")
    for turn in range(TURNS):
        s += sgl.user(question(turn))
        s += sgl.assistant("<think>\n" + sgl.gen(f"thought{turn}") + "\n</think>\n\n" + sgl.gen(f"answer{turn}"))


@pytest.fixture(scope="module")
def state(engine) -> sgl.ProgramState:
    return thinking.run(backend=engine, max_new_tokens=6, temperature=0.0)


def test_each_turn_computes_from_the_last_unchanged_message_on_and_says_so(engine, state):
    for turn in range(1, TURNS):
        call = state.explain(f"thought{turn}")
        answer = state[f"answer{turn - 1}"].lstrip("\n")
        new = f"<|im_start|>assistant\n{answer}<|im_end|>\n<|im_start|>user\n{question(turn)}<|im_end|>\n"
        assert call.continuation == f"template rewrote history at message {2 * turn}"
        assert call.cached + call.computed + call.forced == call.prompt
        assert call.computed <= tokens_in(engine, new + "<|im_start|>assistant\n<think>\n") + 1


def test_within_a_turn_the_reasoning_is_still_there_and_continued_exactly(engine, state):
    for turn in range(TURNS):
        call = state.explain(f"answer{turn}")
        assert call.continuation == "continued"
        assert call.computed <= tokens_in(engine, "\n</think>\n\n") + 1


def test_what_a_turn_says_does_not_depend_on_the_cache(engine, state):
    engine.flush_cache()
    again = thinking.run(backend=engine, max_new_tokens=6, temperature=0.0)
    assert again.text() == state.text()
