"""A tool: the model asks for a calculation, the program does it, and the model answers with the result."""

import json

import ramify as sgl

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    },
}


def read_call(text):
    """The call in an answer, as (name, arguments), or None."""
    inside = text.partition("<tool_call>")[2].partition("</tool_call>")[0]
    try:
        call = json.loads(inside)
        return call["name"], call["arguments"]
    except (ValueError, KeyError, TypeError):
        return None


@sgl.function
def calculate(s, question):
    s += sgl.user(question)
    s += sgl.assistant(sgl.gen("call", max_tokens=64, temperature=0))
    call = read_call(s["call"])
    if call is None:
        return None
    name, arguments = call
    result = sum(value for value in arguments.values() if isinstance(value, (int, float)))
    s += sgl.tool(str(result))
    s += sgl.assistant(sgl.gen("answer", max_tokens=32, temperature=0))
    return f"{name}({', '.join(f'{key}={value}' for key, value in arguments.items())}) = {result}"


def main(backend):
    """Ask for two sums."""
    for question in ("What is 27 plus 58?", "Add 64 and 19."):
        state = calculate.run(question, tools=[ADD], backend=backend)
        print(question)
        if state.ret_value is None:
            print(f"  The model made no call: {state['call']}")
        else:
            print(f"  {state.ret_value}\n  {state['answer']}")


if __name__ == "__main__":
    with sgl.Engine() as engine:
        main(engine)
