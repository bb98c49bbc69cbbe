"""The programs of SGLang's documented frontend, as they stand there, with only the import changed to `import ramify as sgl`.

Sources: "SGLang Frontend Language" (tutorial), "Choices Methods in SGLang", the README's frontend section and the examples in
`examples/frontend_language`. A script plays the model.
"""

from __future__ import annotations

import asyncio

import pytest

import ramify as sgl
from ramify import assistant, assistant_begin, assistant_end, function, gen, set_default_backend, system, user
from ramify.lang.backends.scripted import Scripted

pytestmark = pytest.mark.timeout(30)

CHARACTER = """{
    "name": "Harry",
    "house": "Gryffindor",
    "blood status": "Half-blood",
    "occupation": "student",
    "wand": {
        "wood": "Holly",
        "core": "Phoenix feather",
        "length": 11.0
    },
    "alive": "Alive",
    "patronus": "Stag",
    "bogart": "Dementor"
}"""

character_regex = (
    r"""\{\n"""
    + r"""    "name": "[\w\d\s]{1,16}",\n"""
    + r"""    "house": "(Gryffindor|Slytherin|Ravenclaw|Hufflepuff)",\n"""
    + r"""    "blood status": "(Pure-blood|Half-blood|Muggle-born)",\n"""
    + r"""    "occupation": "(student|teacher|auror|ministry of magic|death eater|order of the phoenix)",\n"""
    + r"""    "wand": \{\n"""
    + r"""        "wood": "[\w\d\s]{1,16}",\n"""
    + r"""        "core": "[\w\d\s]{1,16}",\n"""
    + r"""        "length": [0-9]{1,2}\.[0-9]{0,2}\n"""
    + r"""    \},\n"""
    + r"""    "alive": "(Alive|Deceased)",\n"""
    + r"""    "patronus": "[\w\d\s]{1,16}",\n"""
    + r"""    "bogart": "[\w\d\s]{1,16}"\n"""
    + r"""\}"""
)


def model(prompt: str) -> str:
    """Plays a model that knows what the tutorial asks."""
    known = {
        "I need to use a ": "calculator",
        "The math expression is": "2 * 2",
        "tip 1 into a paragraph:\n": "Eat vegetables.\n\nMore",
        "tip 2 into a paragraph:\n": "Go running.\n\nMore",
        "I can say:\n": "Eat and run.",
        "In summary": " eat and run.",
        "DNS servers?<|end|><|assistant|>": "8.8.8.8",
        "DNS servers?\nA: ": "8.8.8.8",
        "Harry Potter": CHARACTER,
        "capital of France": "Paris",
        "capital of France?<|end|><|assistant|>Answer: ": "Paris",
        "Reasoning:": " I need a calculator.",
        "Tool:": "calculator",
        "Answer:": " 11",
    }
    found = [(prompt.rfind(end) + len(end), answer) for end, answer in known.items() if end in prompt]
    return max(found)[1] if found else "An answer."


@pytest.fixture(autouse=True)
def backend():
    backend = Scripted(model)
    set_default_backend(backend)
    yield backend
    set_default_backend(None)


def test_basic_usage():
    @function
    def basic_qa(s, question):
        s += system("You are a helpful assistant than can answer questions.")
        s += user(question)
        s += assistant(gen("answer", max_tokens=512))

    state = basic_qa("List 3 countries and their capitals.")
    assert state["answer"] == "An answer."


def test_multi_turn_dialog():
    @function
    def multi_turn_qa(s):
        s += system("You are a helpful assistant than can answer questions.")
        s += user("Please give me a list of 3 countries and their capitals.")
        s += assistant(gen("first_answer", max_tokens=512))
        s += user("Please give me another list of 3 countries and their capitals.")
        s += assistant(gen("second_answer", max_tokens=512))
        return s

    state = multi_turn_qa()
    assert state["first_answer"] == state["second_answer"] == "An answer."
    for m in state.messages():
        assert set(m) == {"role", "content"}


def test_control_flow():
    @function
    def tool_use(s, question):
        s += assistant(
            "To answer this question: "
            + question
            + ". I need to use a "
            + gen("tool", choices=["calculator", "search engine"])
            + ". "
        )

        if s["tool"] == "calculator":
            s += assistant("The math expression is: " + gen("expression"))
        elif s["tool"] == "search engine":
            s += assistant("The key word to search is: " + gen("word"))

    state = tool_use("What is 2 * 2?")
    assert (state["tool"], state["expression"]) == ("calculator", "2 * 2")


def test_parallelism():
    @function
    def tip_suggestion(s):
        s += assistant("Here are two tips for staying healthy: 1. Balanced Diet. 2. Regular Exercise.\n\n")

        forks = s.fork(2)
        for i, f in enumerate(forks):
            f += assistant(f"Now, expand tip {i + 1} into a paragraph:\n" + gen("detailed_tip", max_tokens=256, stop="\n\n"))

        s += assistant("Tip 1:" + forks[0]["detailed_tip"] + "\n")
        s += assistant("Tip 2:" + forks[1]["detailed_tip"] + "\n")
        s += assistant("To summarize the above two tips, I can say:\n" + gen("summary", max_tokens=512))

    state = tip_suggestion()
    assert state["summary"] == "Eat and run."
    assert "Tip 1:Eat vegetables.\n" in state.text() and "Tip 2:Go running.\n" in state.text()


def test_parallelism_without_roles():
    @sgl.function
    def tip_suggestion(s):
        s += "Here are two tips for staying healthy: 1. Balanced Diet. 2. Regular Exercise.\n\n"

        forks = s.fork(2)
        for i, f in enumerate(forks):
            f += f"Now, expand tip {i + 1} into a paragraph:\n"
            f += sgl.gen("detailed_tip", max_tokens=256, stop="\n\n")

        s += "Tip 1:" + forks[0]["detailed_tip"] + "\n"
        s += "Tip 2:" + forks[1]["detailed_tip"] + "\n"
        s += "In summary" + sgl.gen("summary")

    state = tip_suggestion.run()
    assert state.text().endswith("Tip 1:Eat vegetables.\nTip 2:Go running.\nIn summary eat and run.")


def test_constrained_decoding():
    @function
    def regular_expression_gen(s):
        s += user("What is the IP address of the Google DNS servers?")
        s += assistant(
            gen("answer", temperature=0, regex=r"((25[0-5]|2[0-4]\d|[01]?\d\d?).){3}(25[0-5]|2[0-4]\d|[01]?\d\d?)")
        )

    assert regular_expression_gen()["answer"] == "8.8.8.8"

    @function
    def character_gen(s, name):
        s += user(f"{name} is a character in Harry Potter. Please fill in the following information about this character.")
        s += assistant(gen("json_output", max_tokens=512, regex=character_regex))

    assert character_gen("Harry Potter")["json_output"] == CHARACTER


def test_batching():
    @function
    def text_qa(s, question):
        s += user(question)
        s += assistant(gen("answer", stop="\n"))

    states = text_qa.run_batch(
        [
            {"question": "What is the capital of the United Kingdom?"},
            {"question": "What is the capital of France?"},
            {"question": "What is the capital of Japan?"},
        ],
        progress_bar=True,
    )
    assert [state["answer"] for state in states] == ["An answer.", "Paris", "An answer."]


def test_streaming():
    @function
    def text_qa(s, question):
        s += user(question)
        s += assistant(gen("answer", stop="\n"))

    state = text_qa.run(question="What is the capital of France?", temperature=0.1, stream=True)
    assert "".join(state.text_iter()) == "user: What is the capital of France?\nassistant: Paris\n"


def test_streaming_one_variable_from_plain_code_and_from_coroutines():
    @sgl.function
    def multi_turn_question(s, question_1, question_2):
        s += sgl.system("You are a helpful assistant.")
        s += sgl.user(question_1)
        s += sgl.assistant(sgl.gen("answer_1", max_tokens=256))
        s += sgl.user(question_2)
        s += sgl.assistant(sgl.gen("answer_2", max_tokens=256))

    def run():
        return multi_turn_question.run(
            question_1="What is the capital of the United States?", question_2="List two local attractions.", stream=True
        )

    assert "".join(run().text_iter(var_name="answer_2")) == "An answer."

    async def async_stream():
        return "".join([out async for out in run().text_async_iter(var_name="answer_2")])

    assert asyncio.run(async_stream()) == "An answer."


def test_complex_prompts():
    @function
    def chat_example(s):
        s += system("You are a helpful assistant.")
        # Same as: s += s.system("You are a helpful assistant.")

        with s.user():
            s += "Question: What is the capital of France?"

        s += assistant_begin()
        s += "Answer: " + gen("answer", max_tokens=100, stop="\n")
        s += assistant_end()

    state = chat_example()
    assert state["answer"] == "Paris"
    assert state.messages()[-1] == {"role": "assistant", "content": "Answer: Paris"}


def test_multi_modal_generation_is_refused():
    @function
    def image_qa(s, image_file, question):
        s += user(sgl.image(image_file) + question)
        s += assistant(gen("answer", max_tokens=256))

    with pytest.raises(sgl.InvalidRequest, match="Images are not supported"):
        image_qa("cat.png", "What is in the image?")


@pytest.mark.parametrize(
    "method", [sgl.token_length_normalized, sgl.greedy_token_selection, sgl.unconditional_likelihood_normalized]
)
def test_choices_methods(method):
    @sgl.function
    def example(s):
        s += sgl.user("What is the capital of France?")
        s += sgl.assistant(sgl.gen("answer", choices=["London", "Paris", "Berlin"], choices_method=method))

    assert example()["answer"] == "Paris"


def test_choices_logprob_example():
    @sgl.function
    def tool_use(s, question):
        s += "To answer this question: " + question + ", "
        s += "I need to use a " + sgl.gen("tool", choices=["calculator", "search engine"])

    state = tool_use.run("What is 5 + 5?")
    meta_info = state.get_meta_info("tool")
    assert len(meta_info["input_token_logprobs"][0]) == len("calculator")
    assert len(meta_info["input_token_logprobs"][1]) == len("search engine")


def test_parallel_sample_example():
    @sgl.function
    def parallel_sample(s, question, n):
        s += "Question: Compute 1 + 2 + 3\nReasoning: I need to use a calculator.\nTool: calculator\nAnswer: 6\n"
        s += "Question: " + question + "\n"
        forks = s.fork(n)
        forks += "Reasoning:" + sgl.gen("reasoning", stop="\n") + "\n"
        forks += "Tool:" + sgl.gen("tool", choices=["calculator", "browser"]) + "\n"
        forks += "Answer:" + sgl.gen("answer", stop="\n") + "\n"
        forks.join()

    state = parallel_sample.run(question="Compute 5 + 2 + 4.", n=5, temperature=1.0)
    for i in range(5):
        assert state["reasoning"][i] == " I need a calculator."
        assert (state["tool"][i], state["answer"][i]) == ("calculator", " 11")


def test_multi_stage_fork_example():
    @sgl.function
    def industry_sweep(s, sector_context, companies, research_question):
        s += sector_context + "\n"
        s += "Research question: " + research_question + "\n\n"

        tickers = list(companies.keys())
        forks = s.fork(len(tickers))

        for i, ticker in enumerate(tickers):
            forks[i] += f"--- Company: {ticker} ---\n{companies[ticker]}\n\n"
            forks[i] += f"Analysis of {ticker} against the research question:\n"
            forks[i] += sgl.gen(f"analysis_{ticker}", max_tokens=400, stop="\n\n", temperature=0.3)

        s += "Per-company analyses gathered:\n"
        for i, ticker in enumerate(tickers):
            s += f"\n[{ticker}] " + forks[i][f"analysis_{ticker}"]
        s += "\n\nFinal ranking and top pick with rationale:\n"
        s += sgl.gen("sector_pick", max_tokens=400, temperature=0.2)

    state = industry_sweep.run(sector_context="Chips.", companies={"A": "one", "B": "two"}, research_question="Which?")
    assert state.text().count("An answer.") == 3


def test_cot_decoding_example():
    @sgl.function
    def cot_decoding(s, question, get_top_k):
        s += sgl.user("Question: " + question + "\nAnswer:")
        s += sgl.assistant_begin()

        step_0 = s.fork(1)[0]
        forks = s.fork(get_top_k)

        step_0 += sgl.gen(
            "get_top_k", max_tokens=1, return_logprob=True, top_logprobs_num=get_top_k, return_text_in_logprobs=True
        )
        logprobs = step_0.get_meta_info("get_top_k")["output_top_logprobs"][0]

        for f, token in zip(forks, logprobs, strict=True):
            _logprob, _token_id, text = token
            f += text
            f += sgl.gen("answer", temperature=0, max_tokens=1024, return_logprob=True, top_logprobs_num=2)
            x1s = [xt[0][0] for xt in f.get_meta_info("answer")["output_top_logprobs"]]
            assert len(x1s) == len(f["answer"])
        return [f.text() for f in forks]

    texts = cot_decoding.run(question="How many?", get_top_k=3).ret_value
    assert [text.split("assistant: ")[1][0] for text in texts] == [" ", "!", '"']


def test_n_example():
    @sgl.function
    def multi_turn_question(s, question_1, question_2):
        s += sgl.system("You are a helpful assistant.")
        s += sgl.user(question_1)
        s += sgl.assistant(sgl.gen("answer_1", max_tokens=1024, n=2))
        s += sgl.user(question_2)
        s += sgl.assistant(sgl.gen("answer_2", max_tokens=1024))

    state = multi_turn_question.run(question_1="What is the capital of the United States?", question_2="Attractions?")
    assert isinstance(state["answer_1"], list) and len(state["answer_1"]) == 2
    assert isinstance(state["answer_2"], str)


def test_decorator_with_arguments_and_the_set_of_names():
    @sgl.function(num_api_spec_tokens=64)
    def gen_character_spec(s):
        s += "Name:" + sgl.gen("name", stop="\n") + "\nBirthday:" + sgl.gen("birthday", stop="\n")

    assert gen_character_spec.run()["birthday"] == "An answer."
    documented = """assistant assistant_begin assistant_end flush_cache function gen gen_int gen_string get_server_info image
        select set_default_backend system system_begin system_end user user_begin user_end video Engine Runtime OpenAI
        RuntimeEndpoint greedy_token_selection token_length_normalized unconditional_likelihood_normalized""".split()
    assert not set(documented) - set(sgl.__all__)
