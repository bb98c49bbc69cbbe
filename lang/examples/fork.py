"""A fork: branches go on from one state at the same time, and what they share is computed once."""

import ramify as sgl


@sgl.function
def advice(s, topic):
    s += sgl.user(f"Give me three tips for {topic}.")
    s += sgl.assistant(sgl.gen("tips", max_tokens=48, temperature=0))
    tips = [line.partition(". ")[2].strip(". ") for line in s["tips"].splitlines() if ". " in line] or [topic]

    branches = s.fork(len(tips))
    for branch, tip in zip(branches, tips, strict=True):
        branch += sgl.user(f"Expand this tip: {tip}")
        branch += sgl.assistant(sgl.gen("sentence", max_tokens=32, temperature=0))
    branches.join()
    return tips


def main(backend):
    """Ask for tips, then have all of them expanded at once."""
    state = advice.run("staying healthy", backend=backend)
    for tip, sentence in zip(state.ret_value, state["sentence"], strict=True):
        print(f"{tip}: {sentence}")


if __name__ == "__main__":
    with sgl.Engine() as engine:
        main(engine)
