"""A conversation of five turns: each turn continues from the tokens that the model already holds."""

import ramify as sgl

TURNS = [
    "My name is Nora.",
    "My dog is called Bruno.",
    "I live in Lisbon.",
    "What is my dog called?",
    "What is my name?",
]


@sgl.function
def chat(s):
    s += sgl.system("You are a helpful assistant.")
    for number, question in enumerate(TURNS):
        s += sgl.user(question)
        s += sgl.assistant(sgl.gen(f"answer{number}", max_tokens=32, temperature=0))


def main(backend):
    """Tell three things, ask for two of them, and show what each turn had to compute."""
    state = chat.run(backend=backend)
    for number, question in enumerate(TURNS):
        cost = state.explain(f"answer{number}")
        print(f"user: {question}")
        print(f"assistant: {state[f'answer{number}']}   [{cost.cached} tokens cached, {cost.computed} computed]")


if __name__ == "__main__":
    with sgl.Engine() as engine:
        main(engine)
