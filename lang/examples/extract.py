"""JSON as an object: the output is constrained by a type's schema, and the variable holds a value of that type."""

from dataclasses import dataclass

import ramify as sgl

SENTENCES = [
    "Marta Silva is 34 years old, lives in Porto and bought a bicycle.",
    "In Lyon, Jonas Weber (52) picked up a lantern.",
]


@dataclass
class Order:
    name: str
    age: int
    city: str
    product: str


@sgl.function
def extract(s, sentence):
    s += sgl.user(f"Extract name, age, city and product as JSON: {sentence}")
    s += sgl.assistant(sgl.gen("order", type=Order, max_tokens=96, temperature=0))


def main(backend):
    """Read two sentences into objects, and use one as such."""
    for sentence in SENTENCES:
        order = extract.run(sentence, backend=backend)["order"]
        print(sentence)
        print(f"  {order}: {order.age + 1} next year")


if __name__ == "__main__":
    with sgl.Engine() as engine:
        main(engine)
