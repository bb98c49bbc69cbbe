"""A batch: one program, many inputs; the engine decodes them together and shares their common beginning."""

import ramify as sgl

WORDS = ["hot", "big", "fast", "happy", "light", "hard", "wet", "young", "full", "rich", "early", "open"]


@sgl.function
def opposite(s, word):
    s += "Q: What is the opposite of low?\nA: high\n"
    s += "Q: What is the opposite of left?\nA: right\n"
    s += "Q: What is the opposite of clean?\nA: dirty\n"
    s += f"Q: What is the opposite of {word}?\nA: " + sgl.gen("answer", stop="\n")


def main(backend):
    """Ask for twelve opposites at once."""
    states = opposite.run_batch([{"word": word} for word in WORDS], backend=backend, temperature=0, max_new_tokens=8)
    print(", ".join(f"{word}/{state['answer']}" for word, state in zip(WORDS, states, strict=True)))


if __name__ == "__main__":
    with sgl.Engine() as engine:
        main(engine)
