"""A choice: the model scores all options together, and the program branches on the best one."""

import ramify as sgl

REVIEWS = ["The new lamp is wonderful.", "My radio from Lyon is broken.", "The hotel in Turin was average."]
REPLIES = {"positive": "Thank you!", "negative": "We are sorry.", "neutral": "Thank you for your opinion."}


@sgl.function
def judge(s, review):
    s += sgl.user(f"Classify the review as positive, negative or neutral: {review}")
    s += sgl.assistant(sgl.select("feeling", ["positive", "negative", "neutral"]))
    return REPLIES[s["feeling"]]


def main(backend):
    """Judge three reviews and show how sure the model was."""
    states = judge.run_batch([{"review": review} for review in REVIEWS], backend=backend)
    for review, state in zip(REVIEWS, states, strict=True):
        scores = state.get_meta_info("feeling")["normalized_prompt_logprobs"]
        shown = ", ".join(f"{option} {score:.1f}" for option, score in zip(REPLIES, scores, strict=True))
        print(f"{review} -> {state['feeling']} ({shown}): {state.ret_value}")


if __name__ == "__main__":
    with sgl.Engine() as engine:
        main(engine)
