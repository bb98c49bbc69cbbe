"""Programs against the scripted backend: every form in which something can be written, and what is read afterwards."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest

import ramify as sgl
from ramify.constrained.spec import Choice, Ebnf, JsonSchema, Regex
from ramify.lang.backends.scripted import Scripted, render
from ramify.runtime.protocol import Chat, GenerateRequest, ScoreRequest, Text, Tokens

pytestmark = pytest.mark.timeout(30)


def echo(prompt: str) -> str:
    """Answers with how long the prompt is, so that texts differ."""
    return f"answer to {len(prompt)}"


def single(backend: Scripted) -> GenerateRequest:
    (request,) = backend.requests
    assert isinstance(request, GenerateRequest)
    return request


# ------------------------------------------------------------------------------------------------------------ writing


def test_text_between_two_calls_becomes_one_piece_of_prompt():
    backend = Scripted(["first", "second"])

    @sgl.function
    def program(s):
        s += "a"
        s += "b" + sgl.gen("x") + "c"
        s += "d"
        s += sgl.gen("y")

    state = program.run(backend=backend)
    first, second = backend.requests
    assert first.prompt == (Text("ab"),)
    assert isinstance(second.prompt[0], Tokens) and second.prompt[1:] == (Text("cd"),)
    assert render(second.prompt) == "abfirstcd"
    assert state.text() == "abfirstcdsecond"
    assert (state["x"], state["y"]) == ("first", "second")


def test_an_expression_can_be_appended_many_times():
    ask = "Q: " + sgl.gen("x", stop="!") + "\n"
    backend = Scripted(["one", "two"])

    @sgl.function
    def program(s):
        s += ask
        first = s["x"]
        s += ask
        return first

    state = program.run(backend=backend)
    assert (state.ret_value, state["x"]) == ("one", "two")
    assert state.text() == "Q: one\nQ: two\n"


def test_numbers_are_text_and_other_things_are_refused():
    @sgl.function
    def program(s):
        s += 3
        s += " and " + sgl.gen("x") + 0.5

    assert program.run(backend=Scripted(["4"])).text() == "3 and 40.5"

    @sgl.function
    def wrong(s):
        s += ["a", "list"]

    with pytest.raises(TypeError, match="list cannot be appended"):
        wrong.run(backend=Scripted(echo))


ROLES = {
    "expressions": lambda s: [
        s.__iadd__(sgl.system("Be kind.") + sgl.user("Hi.")),
        s.__iadd__(sgl.assistant("Well: " + sgl.gen("x"))),
    ],
    "begin and end": lambda s: [
        s.__iadd__(sgl.system_begin() + "Be kind." + sgl.system_end() + sgl.user_begin() + "Hi." + sgl.user_end()),
        s.__iadd__(sgl.assistant_begin() + "Well: " + sgl.gen("x") + sgl.assistant_end()),
    ],
    "methods": lambda s: [s.system("Be kind."), s.__iadd__(s.user("Hi.")), s.assistant("Well: " + sgl.gen("x"))],
    "methods that begin and end": lambda s: [
        *(s.system_begin(), s.__iadd__("Be kind."), s.system_end()),
        *(s.user_begin(), s.__iadd__("Hi."), s.user_end()),
        *(s.assistant_begin(), s.__iadd__("Well: "), s.__iadd__(sgl.gen("x")), s.assistant_end()),
    ],
}


@pytest.mark.parametrize("form", [*ROLES, "context managers"])
def test_roles_mean_the_same_in_every_form(form):
    backend = Scripted(["hello"])

    @sgl.function
    def program(s):
        if form != "context managers":
            ROLES[form](s)
            return
        with s.system():
            s += "Be kind."
        with s.user():
            s += "Hi."
        with s.assistant():
            s += "Well: "
            s += sgl.gen("x")

    state = program.run(backend=backend)
    assert state.messages() == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Well: hello"},
    ]
    assert backend.prompts == ["<|system|>Be kind.<|end|><|user|>Hi.<|end|><|assistant|>Well: "]
    assert state.text() == "system: Be kind.\nuser: Hi.\nassistant: Well: hello\n"


def test_an_assistant_turn_that_begins_with_a_call_is_asked_for_by_the_template_itself():
    backend = Scripted(["hello"])

    @sgl.function
    def program(s):
        s += sgl.user("Hi.") + sgl.assistant(sgl.gen("x"))

    program.run(backend=backend)
    (chat,) = single(backend).prompt
    assert isinstance(chat, Chat) and chat.generation_prompt and not chat.continue_final
    assert [turn.role for turn in chat.messages] == ["user"]


def test_a_call_within_a_user_turn_continues_that_turn():
    backend = Scripted(["Paris"])

    @sgl.function
    def program(s):
        s += sgl.user("Name a city: " + sgl.gen("city"))

    assert program.run(backend=backend)["city"] == "Paris"
    (chat,) = single(backend).prompt
    assert isinstance(chat, Chat) and chat.continue_final and chat.messages[-1].role == "user"


def test_every_call_of_a_conversation_sends_the_ids_of_the_call_before():
    backend = Scripted(["one", "two", "three"])

    @sgl.function
    def program(s):
        for turn in range(3):
            s += sgl.user(f"question {turn}")
            s += sgl.assistant(sgl.gen(f"answer{turn}"))

    state = program.run(backend=backend)
    held = [request.prompt[0].held for request in backend.requests]
    assert held[0] == b""
    for before, after in zip(backend.requests, held[1:], strict=False):
        assert render((Tokens(after),)).startswith(render(before.prompt))
    assert [state.explain(f"answer{turn}").continuation for turn in range(3)] == ["new", "continued", "continued"]
    # What the turn adds is the answer's end, the question and the header of the next answer.
    last = state.explain("answer2")
    assert last.computed == len("<|end|><|user|>question 2<|end|><|assistant|>")


def test_text_before_the_first_role_stands_in_front_of_the_conversation():
    backend = Scripted(["hello"])

    @sgl.function
    def program(s):
        s += "preface "
        s += sgl.user("Hi.") + sgl.assistant(sgl.gen("x"))

    program.run(backend=backend)
    assert backend.prompts == ["preface <|user|>Hi.<|end|><|assistant|>"]


@pytest.mark.parametrize("outside", ["text", sgl.gen("x"), sgl.select("x", ["a", "b"])])
def test_nothing_may_stand_between_the_turns_of_a_conversation(outside):
    @sgl.function
    def program(s):
        s += sgl.user("Hi.")
        s += outside

    with pytest.raises(sgl.InvalidRequest, match=r"outside of any role.*assistant\(gen") as caught:
        program.run(backend=Scripted(echo))
    assert caught.value.code == "text_outside_role"


def test_turns_do_not_nest_and_must_be_ended_by_their_own_role():
    @sgl.function
    def nested(s):
        s += sgl.user("a" + sgl.assistant("b"))

    @sgl.function
    def crossed(s):
        s += sgl.user_begin() + "a" + sgl.assistant_end()

    @sgl.function
    def unopened(s):
        s += sgl.user_end()

    for program, message in ((nested, "turns do not nest"), (crossed, "open turn is one of user"), (unopened, "no turn is open")):
        with pytest.raises(sgl.InvalidRequest, match=message):
            program.run(backend=Scripted(echo))


def test_a_tool_turn_carries_a_tools_answer():
    backend = Scripted(['<tool_call>{"name": "add"}</tool_call>', "It is 4."])

    @sgl.function
    def program(s):
        s += sgl.user("2 + 2?") + sgl.assistant(sgl.gen("call"))
        s += sgl.tool("4")
        s += sgl.assistant(sgl.gen("answer"))

    state = program.run(backend=backend, tools=[{"type": "function", "function": {"name": "add"}}])
    assert [m["role"] for m in state.messages()] == ["user", "assistant", "tool", "assistant"]
    chat = backend.requests[0].prompt[0]
    assert chat.tools == ('{"type": "function", "function": {"name": "add"}}',)


# -------------------------------------------------------------------------------------------------- what calls ask for


def test_every_argument_of_gen_reaches_the_request():
    backend = Scripted(["x"])
    node = sgl.gen(
        "x",
        max_tokens=7,
        min_tokens=1,
        stop=["a", "b"],
        stop_token_ids=[3],
        stop_regex="c+",
        temperature=0.5,
        top_p=0.9,
        top_k=10,
        min_p=0.1,
        frequency_penalty=0.2,
        presence_penalty=0.3,
        repetition_penalty=1.1,
        ignore_eos=True,
        seed=42,
        logit_bias={"5": -1},
        return_logprob=True,
        logprob_start_len=2,
        top_logprobs_num=3,
    )
    sgl.function(lambda s: s.__iadd__(node)).run(backend=backend)
    request = single(backend)
    assert request.sampling == sgl.SamplingParams(
        max_new_tokens=7,
        min_new_tokens=1,
        stop=("a", "b"),
        stop_token_ids=(3,),
        stop_regex=("c+",),
        temperature=0.5,
        top_p=0.9,
        top_k=10,
        min_p=0.1,
        frequency_penalty=0.2,
        presence_penalty=0.3,
        repetition_penalty=1.1,
        ignore_eos=True,
        seed=42,
        logit_bias={5: -1.0},
    )
    assert (request.logprobs.output, request.logprobs.prompt_from, request.logprobs.top) == (True, 2, 3)


def test_what_a_call_does_not_say_is_taken_from_the_run():
    backend = Scripted(["a", "b"])

    @sgl.function
    def program(s):
        s += sgl.gen("x", temperature=0.9) + sgl.gen("y")

    program.run(backend=backend, temperature=0.1, max_new_tokens=5, stop="\n", priority=3, deadline_s=9.0, tenant="t")
    first, second = backend.requests
    assert (first.sampling.temperature, second.sampling.temperature) == (0.9, 0.1)
    assert first.sampling.max_new_tokens == 5 and first.sampling.stop == ("\n",)
    assert (first.priority, first.deadline_s, first.tenant) == (3, 9.0, "t")


def test_a_run_may_ask_for_n_texts_of_every_call():
    @sgl.function
    def program(s):
        s += "q" + sgl.gen("x") + sgl.gen("y", n=1)

    state = program.run(backend=Scripted(["a", "b"]), n=2)
    assert (state["x"], state["y"]) == (["a", "a"], "b")


def test_a_name_that_is_the_programs_own_argument_is_given_to_the_program():
    @sgl.function
    def program(s, n, temperature):
        s += f"{n} {temperature}"

    assert program.run(n=5, temperature=1.0, backend=Scripted(echo)).text() == "5 1.0"


def test_a_word_that_nobody_knows_is_refused():
    @sgl.function
    def program(s):
        s += sgl.gen("x")

    with pytest.raises(TypeError, match="tempurature"):
        program.run(tempurature=1.0, backend=Scripted(echo))


CONSTRAINTS = [
    ({"regex": "[0-9]+"}, Regex("[0-9]+"), "12"),
    ({"ebnf": 'root ::= "a"'}, Ebnf('root ::= "a"'), "a"),
    ({"json_schema": '{"type": "null"}'}, JsonSchema('{"type": "null"}'), "null"),
    ({"json_schema": {"type": "null"}}, JsonSchema('{"type": "null"}'), "null"),
    ({"dtype": int}, Regex("[-+]?[0-9]+"), "-5"),
    ({"dtype": "float"}, Regex(r"[-+]?[0-9]*\.?[0-9]+"), ".5"),
    ({"dtype": bool}, Regex("(True|False)"), "True"),
    ({"dtype": str}, JsonSchema('{"type": "string"}'), '"a"'),
]


@pytest.mark.parametrize(("arguments", "constraint", "answer"), CONSTRAINTS)
def test_a_constraint_reaches_the_request_and_the_variable_stays_text(arguments, constraint, answer):
    backend = Scripted([answer])
    state = sgl.function(lambda s: s.__iadd__(sgl.gen("x", **arguments))).run(backend=backend)
    assert single(backend).constraint == constraint
    assert state["x"] == answer


def test_gen_int_and_gen_string_are_gen_with_a_dtype():
    assert sgl.gen_int("x", 5, stop="a") == sgl.gen("x", 5, stop="a", dtype=int)
    assert sgl.gen_string("x", temperature=0) == sgl.gen("x", temperature=0, dtype=str)
    assert sgl.gen_int("x", 5, 2) == sgl.gen("x", 5, n=2, dtype=int)


BAD_ARGUMENTS = [
    ({"regex": "a", "choices": ["a"]}, "choices and regex"),
    ({"type": int, "json_schema": "{}"}, "json_schema and type"),
    ({"max_tokens": -1}, "max_tokens is -1"),
    ({"n": 0}, "n is 0"),
    ({"temperature": "hot"}, "temperature is 'hot'"),
    ({"stop": 5}, "stop is 5"),
    ({"regex": "("}, "not a regular expression"),
    ({"json_schema": "{"}, "not valid JSON"),
    ({"dtype": "complex"}, "dtype 'complex' is not known"),
    ({"choices": []}, "at least one choice"),
    ({"choices": "ab"}, "at least one choice"),
    ({"choices": ["a", ""]}, "choice is empty"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_gen_refuses_what_cannot_be_right_where_it_is_written(arguments, message):
    with pytest.raises(sgl.InvalidRequest, match=message):
        sgl.gen("x", **arguments)


def test_images_and_videos_are_refused_clearly():
    for refused in (lambda: sgl.image("a.png"), lambda: sgl.video("a.mp4", 3)):
        with pytest.raises(sgl.InvalidRequest, match="not supported") as caught:
            refused()
        assert caught.value.code == "unsupported_modality"


def test_n_gives_a_list_and_the_text_goes_on_with_the_first():
    backend = Scripted([["one", "two"], "after"])

    @sgl.function
    def program(s):
        s += "a:" + sgl.gen("x", n=2) + "." + sgl.gen("y")

    state = program.run(backend=backend)
    assert state["x"] == ["one", "two"] and state["y"] == "after"
    assert backend.prompts[1] == "a:one."
    assert [meta["completion_tokens"] for meta in state.get_meta_info("x")] == [3, 3]


def test_stop_and_length_end_a_text_and_the_meta_info_says_so():
    @sgl.function
    def program(s):
        s += sgl.gen("stopped", stop=".") + sgl.gen("cut", max_tokens=3)

    state = program.run(backend=Scripted(["One. Two.", "abcdef"]))
    assert (state["stopped"], state["cut"]) == ("One", "abc")
    assert state.get_meta_info("stopped")["finish_reason"] == {"type": "stop", "matched": "."}
    assert state.get_meta_info("cut")["finish_reason"] == {"type": "length", "length": 3}


def test_logprobs_come_in_sglangs_form():
    @sgl.function
    def program(s):
        s += sgl.gen("x", return_logprob=True, top_logprobs_num=2, return_text_in_logprobs=True)

    meta = program.run(backend=Scripted(["ab"])).get_meta_info("x")
    assert meta["output_token_logprobs"] == [(-0.5, 97, "a"), (-0.5, 98, "b")]
    assert meta["output_top_logprobs"][0] == [(-0.5, 97, "a"), (-1.5, 98, "b")]


# ------------------------------------------------------------------------------------------------------------- select


def test_select_appends_the_likeliest_choice_and_continues_from_its_tokens():
    backend = Scripted(lambda prompt: "search engine, of course" if prompt.endswith("a ") else "done")

    @sgl.function
    def program(s):
        s += "I need a " + sgl.select("tool", ["calculator", "search engine"]) + ". " + sgl.gen("x")

    state = program.run(backend=backend)
    assert state["tool"] == "search engine"
    scored, generated = backend.requests
    assert isinstance(scored, ScoreRequest) and scored.choices == ("calculator", "search engine")
    assert render(generated.prompt) == "I need a search engine. "
    assert isinstance(generated.prompt[0], Tokens)
    meta = state.get_meta_info("tool")
    assert len(meta["input_token_logprobs"]) == 2 and len(meta["normalized_prompt_logprobs"]) == 2
    assert state.explain("tool").finish == "selected"


def test_a_select_says_by_which_rule_its_method_takes_a_choice():
    class LastOne:
        requires_unconditional_logprobs = False

        def __call__(self, *, choices, **_):
            return sgl.ChoicesDecision(choices[-1])

    rules = {
        sgl.token_length_normalized: "mean",
        sgl.greedy_token_selection: "greedy",
        sgl.unconditional_likelihood_normalized: "gain",
        LastOne(): "all",
    }
    for method, rule in rules.items():
        backend, choose = Scripted(["a"]), sgl.select("x", ["a", "b"], choices_method=method)
        sgl.function(lambda s, expr: s.__iadd__("Q:" + expr)).run(choose, backend=backend)
        (request,) = backend.requests
        assert isinstance(request, ScoreRequest) and request.keep == rule


def test_select_above_temperature_zero_samples_under_a_constraint():
    backend = Scripted(["b"])
    state = sgl.function(lambda s: s.__iadd__(sgl.gen("x", choices=["a", "b"], temperature=0.7))).run(backend=backend)
    request = single(backend)
    assert request.constraint == Choice(("a", "b")) and request.sampling.temperature == 0.7
    assert state["x"] == "b"


def test_unconditional_scores_are_asked_for_only_where_a_method_needs_them():
    backend = Scripted(["a", "a"])

    @sgl.function
    def program(s):
        s += sgl.select("x", ["a", "b"])
        s += sgl.select("y", ["a", "b"], choices_method=sgl.unconditional_likelihood_normalized)

    state = program.run(backend=backend)
    assert [request.unconditional for request in backend.requests] == [False, True]
    assert "unconditional_token_logprobs" in state.get_meta_info("y")


# ------------------------------------------------------------------------------------------------------ fork and join


def test_forks_run_at_the_same_time():
    together = asyncio.Event()
    arrived = []

    async def script(prompt: str) -> str:
        arrived.append(prompt)
        if len(arrived) == 3:
            together.set()
        await asyncio.wait_for(together.wait(), 10)
        return prompt[-1]

    @sgl.function
    def program(s):
        s += "p"
        forks = s.fork(3)
        for i, f in enumerate(forks):
            f += str(i) + sgl.gen("x")
        return [f["x"] for f in forks]

    assert program.run(backend=Scripted(script)).ret_value == ["0", "1", "2"]


def test_a_fork_starts_where_its_parent_stands_and_neither_disturbs_the_other():
    backend = Scripted(echo)

    @sgl.function
    def program(s):
        s += "a" + sgl.gen("x")
        forks = s.fork(2)
        s += "parent"
        forks[0] += "zero"
        forks[1] += "one" + sgl.gen("y")
        return [f.text() for f in forks], [f["x"] for f in forks]

    state = program.run(backend=backend)
    x = state["x"]
    assert state.ret_value == ([f"a{x}zero", f"a{x}oneanswer to {len('a' + x + 'one')}"], [x, x])
    assert state.text() == f"a{x}parent"
    assert isinstance(backend.requests[1].prompt[0], Tokens)


def test_the_branches_of_one_fork_carry_one_group():
    backend = Scripted(echo)

    @sgl.function
    def program(s):
        s += sgl.gen()
        for forks in (s.fork(2), s.fork(2)):
            forks += sgl.gen("x")

    program.run(backend=backend)
    groups = [request.hint.fork_group for request in backend.requests]
    assert groups[0] == 0 and sorted(groups[1:].count(group) for group in set(groups[1:])) == [2, 2]
    assert len({request.hint.program for request in backend.requests}) == 1
    assert sorted(request.hint.call for request in backend.requests) == list(range(5))


def test_join_gathers_the_branches_variables_into_lists():
    @sgl.function
    def program(s):
        s += "p" + sgl.gen("before")
        forks = s.fork(3)
        forks += lambda i: "b" * i + sgl.gen("x")
        forks.join()
        forks[0]["late"] = 1

    state = program.run(backend=Scripted(lambda prompt: str(prompt.count("b"))))
    assert state["x"] == ["0", "1", "2"] and state["before"] == "0"
    assert "late" not in state


def test_join_can_append_what_the_branches_wrote():
    backend = Scripted(lambda prompt: f"<{prompt[-1]}>")

    @sgl.function
    def program(s):
        s += "start "
        forks = s.fork(2)
        forks += ["a" + sgl.gen("x") + " ", "b" + sgl.gen("x") + " "]
        forks.join("concate_and_append")
        s += "end"

    assert program.run(backend=backend).text() == "start a<a> b<b> end"


def test_join_appends_whole_turns_too():
    @sgl.function
    def program(s):
        s += sgl.user("q")
        forks = s.fork(2)
        forks += sgl.assistant(sgl.gen("x"))
        forks.join("concate_and_append")

    assert [m["content"] for m in program.run(backend=Scripted(["a", "b"])).messages()] == ["q", "a", "b"]


def test_copy_is_a_fork_of_one():
    @sgl.function
    def program(s):
        s += "a"
        with s.copy() as tmp:
            tmp += "b" + sgl.gen("x")
        s += "c"

    state = program.run(backend=Scripted(["thought"]))
    assert state.text() == "ac" and state["x"] == ["thought"]


def test_forks_of_forks_work():
    @sgl.function
    def program(s):
        s += "r"
        return [[g.text() for g in f.fork(2).__iadd__(lambda i: str(i))] for f in s.fork(2).__iadd__(lambda i: "ab"[i])]

    assert program.run(backend=Scripted(echo)).ret_value == [["ra0", "ra1"], ["rb0", "rb1"]]


def test_a_group_takes_an_expression_for_all_one_each_or_a_function():
    @sgl.function
    def program(s):
        forks = s.fork(2)
        forks += "x"
        forks += ["1", "2"]
        forks += lambda i: f"<{i}>"
        forks[0] += "!"
        return [f.text() for f in forks]

    assert program.run(backend=Scripted(echo)).ret_value == ["x1<0>!", "x2<1>"]


# ------------------------------------------------------------------------------------------------------------ reading


def test_a_scope_is_the_text_that_was_appended_within():
    @sgl.function
    def program(s):
        s += "a"
        with s.var_scope("inner"):
            s += "b" + sgl.gen("x") + "c"
        s += "d"

    state = program.run(backend=Scripted(["-"]))
    assert state["inner"] == "b-c" and state["x"] == "-"


def test_a_scope_cannot_be_read_before_it_has_ended():
    @sgl.function
    def program(s):
        try:
            with s.var_scope("inner"):
                s += "a"
                s["inner"]
        except sgl.InvalidRequest:
            return s["inner"], list(s.text_iter("inner"))

    assert program.run(backend=Scripted(echo)).ret_value == ("a", ["a"])


def test_a_turn_ends_even_if_what_stands_in_it_raises():
    @sgl.function
    def program(s):
        try:
            with s.user():
                s += "a"
                raise ValueError
        except ValueError:
            s += sgl.assistant("b")

    assert [m["role"] for m in program.run(backend=Scripted(echo)).messages()] == ["user", "assistant"]


def test_a_program_can_iterate_over_its_own_text():
    """It ends with what was appended so far, or the program would wait for itself."""

    @sgl.function
    def program(s):
        s += "a" + sgl.gen("x")
        first = list(s.text_iter())
        s += "b"
        return first, list(s.text_iter()), list(s.fork(1)[0].text_iter())

    assert program.run(backend=Scripted(["1 2"])).ret_value == (["a", "1", " 2"], ["a", "1", " 2", "b"], ["a1 2b"])


def test_a_state_can_be_used_after_its_run():
    state = sgl.function(lambda s: s.__iadd__("a")).run(backend=Scripted(["x", "y", "z"]))
    state += sgl.gen("x")
    forks = state.fork(2)
    forks += sgl.gen("y")
    assert (state["x"], forks[0]["y"], forks[1].text()) == ("x", "y", "axz")
    assert "".join(forks[0].text_iter()) == "axy" and "".join(state.text_iter()) == "ax"


def test_variables_can_be_set_and_asked_for():
    @sgl.function
    def program(s):
        s["mine"] = {"any": "value"}
        s.set_var("other", 2)
        assert "mine" in s and "x" not in s
        s += sgl.gen("x")
        assert s.get_var("other") == 2

    state = program.run(backend=Scripted(["t"]))
    assert state["mine"] == {"any": "value"} and state.get_meta_info("mine") is None
    with pytest.raises(sgl.InvalidRequest, match="not made by a call"):
        state.explain("mine")


def test_an_unknown_variable_is_a_key_error_that_names_the_known_ones():
    state = sgl.function(lambda s: s.__iadd__(sgl.gen("x"))).run(backend=Scripted(["t"]))
    with pytest.raises(KeyError, match=r"'y'.*'x'"):
        state["y"]


def test_appending_never_waits():
    release = threading.Event()

    async def script(prompt: str) -> str:
        while not release.is_set():
            await asyncio.sleep(0.001)
        return "done"

    @sgl.function
    def program(s):
        s += sgl.gen("x")
        s += "and" + sgl.gen("y")
        forks = s.fork(2)
        forks += sgl.gen("z")
        forks.join()
        release.set()  # only now can the first call end

    assert program.run(backend=Scripted(script))["z"] == ["done", "done"]


def test_explain_says_where_tokens_came_from():
    backend = Scripted(["a", "b"])
    program = sgl.function(lambda s: s.__iadd__("The same prefix. " + sgl.gen("x")))
    cold, warm = program.run(backend=backend).explain("x"), program.run(backend=backend).explain("x")
    assert (cold.prompt, cold.cached, cold.computed, cold.reason) == (17, 0, 17, "never seen")
    assert (warm.cached, warm.computed) == (16, 1)
    assert re.search(r"17 prompt tokens = 16 cached \+ 1 computed -> 1 output tokens", str(warm))
    assert warm.cached + warm.computed + warm.forced == warm.prompt


# ------------------------------------------------------------------------------------------------- run, batch, stream


@sgl.function
def qa(s, question, mark="?"):
    s += "Q: " + question + mark + "\nA:" + sgl.gen("answer", stop="\n")


def test_a_program_is_called_like_a_function():
    backend = Scripted(echo)
    sgl.set_default_backend(backend)
    try:
        assert qa("Why").text() == qa.run(question="Why").text() == qa.run("Why", mark="?").text()
    finally:
        sgl.set_default_backend(None)


def test_bind_gives_arguments_ahead():
    bound = qa.bind(mark="!")
    assert bound.run("Why", backend=Scripted(["x"])).text() == "Q: Why!\nA:x"
    with pytest.raises(sgl.InvalidRequest, match="has no argument 'color'"):
        qa.bind(color=1)


def test_a_program_continues_in_another_ones_state_when_it_is_given_it():
    @sgl.function
    def outer(s):
        s += "Intro. "
        qa(s, "Why")
        s += "!"

    assert outer.run(backend=Scripted(["x"])).text() == "Intro. Q: Why?\nA:x!"


def test_a_batch_returns_states_in_order():
    async def script(prompt: str) -> str:
        await asyncio.sleep(0.001 * (9 - int(prompt[3])))
        return prompt[3]

    states = qa.run_batch([{"question": str(i)} for i in range(9)], backend=Scripted(script), temperature=0.5)
    assert [state["answer"] for state in states] == [str(i) for i in range(9)]
    assert qa.run_batch([], backend=Scripted(script)) == []


def test_a_batch_takes_values_in_the_order_of_the_arguments_too():
    @sgl.function
    def program(s, q, mark="?"):
        s += q + mark

    states = program.run_batch([("a",), ["b", "!"], {"q": "c"}], backend=Scripted(echo))
    assert [state.text() for state in states] == ["a?", "b!", "c?"]
    with pytest.raises(sgl.InvalidRequest, match="at most 2 values"):
        program.run_batch([("a", "b", "c")], backend=Scripted(echo))


def test_no_more_programs_of_a_batch_run_at_once_than_asked_for():
    running, most = [0], [0]

    async def script(prompt: str) -> str:
        running[0] += 1
        most[0] = max(most[0], running[0])
        await asyncio.sleep(0.002)
        running[0] -= 1
        return "x"

    qa.run_batch([{"question": str(i)} for i in range(12)], backend=Scripted(script), num_threads=3)
    assert most[0] == 3


def test_a_batch_can_be_iterated_while_it_runs():
    gate = threading.Event()

    async def script(prompt: str) -> str:
        while "1" in prompt and not gate.is_set():
            await asyncio.sleep(0.001)
        return prompt[3]

    batch = qa.run_batch([{"question": "0"}, {"question": "1"}], backend=Scripted(script), generator_style=True)
    assert next(batch)["answer"] == "0"
    gate.set()
    assert [state["answer"] for state in batch] == ["1"]


def test_a_progress_bar_counts_on_stderr(capsys):
    qa.run_batch([{"question": "a"}] * 3, backend=Scripted(echo), progress_bar=True)
    shown = capsys.readouterr()
    assert "3/3" in shown.err and shown.out == ""


def test_a_stream_gives_the_text_piece_by_piece():
    state = qa.run("Why", backend=Scripted(["Because it is."]), stream=True)
    pieces = list(state.text_iter())
    assert len(pieces) > 2 and "".join(pieces) == "Q: Why?\nA:Because it is." == state.text()


def test_one_variable_can_be_streamed_even_before_the_program_has_come_to_it():
    begin = threading.Event()

    @sgl.function
    def program(s):
        begin.wait(10)
        s += sgl.user("a") + sgl.assistant(sgl.gen("first"))
        s += sgl.user("b") + sgl.assistant(sgl.gen("second"))
        return "returned"

    state = program.run(backend=Scripted(["One two.", "Three four."]), stream=True)
    pieces = state.text_iter("second")
    begin.set()
    assert "".join(pieces) == "Three four."
    assert state["first"] == "One two." and len(state.messages()) == 4


def test_text_iter_of_a_finished_run_gives_what_there_is():
    state = qa.run("Why", backend=Scripted(["x y"]))
    assert "".join(state.text_iter()) == state.text()
    assert "".join(state.text_iter("answer")) == "x y"


async def test_streams_can_be_read_by_coroutines_with_their_meta_info():
    state = qa.run("Why", backend=Scripted(["a b c"]), stream=True)
    pieces = [piece async for piece in state.text_async_iter("answer", return_meta_data=True)]
    assert "".join(text for text, _ in pieces) == "a b c"
    assert [meta["completion_tokens"] for _, meta in pieces] == [1, 3, 5]
    assert "".join([piece async for piece in state.text_async_iter()]).endswith("a b c")


async def test_arun_runs_in_the_callers_loop():
    loops = []

    @sgl.function
    async def program(s):
        loops.append(asyncio.get_running_loop())
        s += "a" + sgl.gen("x")
        s += await s.get("x")
        await s.wait()

    state = await program.arun(backend=Scripted(["b"]))
    assert state.text() == "abb" and loops == [asyncio.get_running_loop()]
    sync = await qa.arun("Why", backend=Scripted(["c"]))
    assert await sync.get("answer") == "c"


def test_an_async_program_runs_from_plain_code_and_in_batches():
    @sgl.function
    async def program(s, word):
        s += word + sgl.gen("x")
        return await s.get("x")

    backend = Scripted(lambda prompt: prompt.upper())
    assert program.run("a", backend=backend).ret_value == "A"
    states = program.run_batch([{"word": w} for w in "abc"], backend=backend)
    assert [state.ret_value for state in states] == ["A", "B", "C"]
    assert "".join(program.run("a", backend=backend, stream=True).text_iter()) == "aA"


def test_reading_without_await_in_an_async_program_says_what_to_write():
    @sgl.function
    async def program(s):
        s += sgl.gen("x")
        return s["x"]

    with pytest.raises(sgl.InvalidRequest, match=r'await s\.get\("x"\)'):
        program.run(backend=Scripted(echo))


# ---------------------------------------------------------------------------------------------------------- backends


def test_a_run_without_a_backend_says_how_to_set_one():
    sgl.set_default_backend(None)
    with pytest.raises(sgl.InvalidRequest, match="set_default_backend"):
        qa.run("Why")
    with pytest.raises(sgl.InvalidRequest, match="not a backend"):
        sgl.set_default_backend("gpt")
    assert sgl.flush_cache() is False and sgl.get_server_info() is None


def test_the_default_backend_can_be_flushed_and_asked():
    backend = Scripted(echo)
    sgl.set_default_backend(backend)
    try:
        qa.run("Why")
        assert sgl.flush_cache() is True and backend.flushed == 1
        assert sgl.get_server_info()["model"] == "scripted"
    finally:
        sgl.set_default_backend(None)


def test_cache_computes_the_constant_beginning_once():
    backend = Scripted(["x"])

    @sgl.function
    def few_shot(s, question):
        s += "Q: 1 + 1\nA: 2\n" * 5
        s += "Q: " + question + "\nA:" + sgl.gen("answer")

    prefix = "Q: 1 + 1\nA: 2\n" * 5 + "Q: "
    assert few_shot.cache(backend) == len(prefix)
    assert backend.prompts == [prefix] and backend.requests[0].sampling.max_new_tokens == 0
    assert few_shot.run("2 + 2", backend=backend).explain("answer").cached >= len(prefix)

    @sgl.function
    def nothing_constant(s, question):
        s += question + sgl.gen("answer")

    assert nothing_constant.cache(backend) == 0
