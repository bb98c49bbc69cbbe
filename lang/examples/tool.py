"""A tool: the model asks for a calculation, the program does it, and the model answers with the result."""

import ramify as sgl


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@sgl.function
def calculate(s, question):
    s += sgl.user(question)
    return sgl.run_tools(s, [add], name="answer", max_tokens=64, temperature=0, parallel_tool_calls=False)


def main(backend):
    """Ask for two sums."""
    for question in ("What is 27 plus 58?", "Add 64 and 19."):
        state = calculate.run(question, backend=backend)
        print(question)
        for message in state.messages():
            for call in message.get("tool_calls", ()):
                print(f"  calls {call['function']['name']} with {call['function']['arguments']}")
            if message["role"] == "tool":
                print(f"  result {message['content']}")
        print(f"  {state.ret_value}")


if __name__ == "__main__":
    with sgl.Engine() as engine:
        main(engine)
