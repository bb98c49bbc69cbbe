"""A dry run shows what a program will append, without a model."""

from __future__ import annotations

import ramify as sgl
from ramify.runtime.protocol import Chat, Message, Text


def test_a_plan_lists_text_calls_and_forks_in_order():
    @sgl.function
    def program(s, topic):
        s += "About " + topic
        s += f" ({topic}): " + sgl.gen("intro", stop="\n", max_tokens=5)
        forks = s.fork(2)
        forks += "more " + sgl.gen("x")
        s += forks[0]["x"] + sgl.select("verdict", ["good", "bad"])

    plan = program.trace()
    assert str(plan).split("\n", 1)[1] == "\n".join(
        [
            "  1 text 'About {topic} ({topic}): '",
            "  2 gen('intro', max_new_tokens=5, stop=('\\n',))",
            "  3 fork into 2",
            "  4   branch 0",
            "  5     text 'more '",
            "  6     gen('x')",
            "  7   branch 1",
            "  8     text 'more '",
            "  9     gen('x')",
            " 10 text '{x}'",
            " 11 select('verdict', ['good', 'bad'])",
        ]
    )
    assert [call.name for call in plan.calls] == ["intro", "x", "x", "verdict"]
    assert plan.arguments == ("topic",) and plan.stopped is None


def test_given_and_default_arguments_are_shown_as_they_are():
    @sgl.function
    def program(s, a, b="B", c="C"):
        s += a + b + c

    assert program.bind(c="bound").trace(a="A").steps[0].text == "text 'ABbound'"


def test_a_plan_ends_where_the_code_needs_a_real_value():
    @sgl.function
    def program(s, count):
        s += "before"
        for _ in range(count):
            s += "never"

    plan = program.trace()
    assert [step.text for step in plan.steps] == ["text 'before'"]
    assert plan.stopped is not None and "TypeError" in plan.stopped and "TypeError" in str(plan)


def test_async_programs_are_traced_too():
    @sgl.function
    async def program(s):
        s += sgl.gen("x")
        s += "got " + await s.get("x")
        await s.wait()

    assert [step.text for step in program.trace().steps] == ["gen('x')", "text 'got {x}'"]


def test_the_prefix_ends_at_the_first_thing_that_varies():
    @sgl.function
    def raw(s, question):
        s += "Always the same. " + question + sgl.gen("x")

    @sgl.function
    def chat(s, question):
        s += sgl.system("Always.") + sgl.user("Same: " + question) + sgl.assistant(sgl.gen("x"))

    @sgl.function
    def system_alone(s, question):
        s += sgl.system("Always.") + sgl.user(question)

    @sgl.function
    def whole(s):
        s += sgl.user("Always.") + sgl.assistant(sgl.gen("x"))

    @sgl.function
    def nothing(s, question):
        s += sgl.user(question)

    assert raw.trace().prefix() == (Text("Always the same. "),)
    always = Message("system", "Always.")
    opened = Chat((always, Message("user", "Same: ")), generation_prompt=False, continue_final=True)
    assert chat.trace().prefix() == (opened,)
    assert system_alone.trace().prefix() == (Chat((always,), generation_prompt=False),)
    assert whole.trace().prefix() == (Chat((Message("user", "Always."),)),)
    assert nothing.trace().prefix() == ()


def test_reading_in_a_dry_run_gives_placeholders():
    seen = []

    @sgl.function
    def program(s):
        s += sgl.user("a") + sgl.assistant(sgl.gen("x"))
        seen.append((s.messages(), s.error(), "x" in s))

    program.trace()
    assert seen == [([{"role": "user", "content": "a"}, {"role": "assistant", "content": "{x}"}], None, True)]
