"""Few-shot questions: the examples are computed once, whatever is asked after them."""

import ramify as sgl

EXAMPLES = {"Japan": "Tokyo", "Italy": "Rome", "Egypt": "Cairo", "Norway": "Oslo", "Peru": "Lima"}


@sgl.function
def capital(s, country):
    for known, city in EXAMPLES.items():
        s += f"Q: What is the capital of {known}?\nA: {city}\n"
    s += f"Q: What is the capital of {country}?\nA: "
    s += sgl.gen("city", max_tokens=8, temperature=0, stop="\n")


def main(backend):
    """Compute the examples ahead, then ask four questions: each finds nearly its whole prompt in the cache."""
    print(f"The examples are {capital.cache(backend)} tokens, computed ahead.")
    for country in ("France", "Spain", "Greece", "Cuba"):
        state = capital.run(country, backend=backend)
        print(f"{country}: {state['city']}")


if __name__ == "__main__":
    with sgl.Engine() as engine:
        main(engine)
