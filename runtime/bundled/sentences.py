"""Sentences put together at random: what a model must do to find a field in a sentence whose form it has never seen.

Patterns (`patterns.py`) are good English, and few; a model learns their forms by heart. Here the parts of a sentence stand in any
order among words that mean nothing for the question, so only the words around a value tell what it is.
"""

from __future__ import annotations

from .words import Draw

PARTS = {
    "name": ("{}", "{}", "{}", "a person called {}", "our client {}", "the buyer {}", "somebody named {}", "my friend {}", "a certain {}",
             "{} (the customer)", "one {}", "our guest {}", "Name: {}", "I am {}", "by {}", "to {}", "with {}", "{} himself", "{} herself"),
    "age": ("aged {}", "{} years old", "of {} years", "who is {}", "age {}", "({})", "at {}", "now {}", "{} years of age", "being {}",
            "Age: {}", "just turned {}", "already {}", "a {}-year-old", "with {} years", "{}"),
    "city": ("in {}", "in {}", "from {}", "of {}", "near {}", "living in {}", "City: {}", "to {}", "outside {}", "at home in {}", "via {}",
             "a shop in {}", "the market of {}", "our office in {}", "coming from {}", "sent to {}", "close to {}", "back in {}"),
    "product": ("a {}", "a {}", "the {}", "the {}", "one {}", "this {}", "a new {}", "an order: {}", "Product: {}", "her {}", "his {}",
                "some {}", "that old {}", "any {}", "a very good {}", "my {}", "a second {}"),
    "price": ("for {} dollars", "{} dollars", "at {} dollars", "Price: {} dollars", "costing {} dollars", "(worth {} dollars)",
              "paid {} dollars", "a price of {} dollars", "just {} dollars", "more than {} dollars", "with {} dollars"),
}
BETWEEN = (", ", ", ", " ", " ", " ", "; ", " and ", ". ", " - ", ": ", " (", " / ", ", and ")
FILLERS = (
    "yesterday today tomorrow again soon later once twice never always often bought buys sold sells took takes found finds lost loses wants "
    "needs got gets has had chose picked ordered asked said says told wrote sent brought carried kept saw met knows thinks hopes likes loves "
    "thank please note well so then but because while although when after before since until perhaps maybe indeed really quite very too also "
    "only even still just there here where it this these those we they she he you everybody nobody it was there is we have please send put "
    "write down take charge deliver show invoice order receipt shop market office day week month year morning evening birthday gift holiday "
    "happy late early quick slow proud tired glad whole half other next last first about under over behind between without against during "
    "despite instead according regarding unlike besides except thanks to").split()


def varied(d: Draw, values: dict[str, str]) -> str:
    """One sentence or two that hold these values. values: kind -> text as it stands in the sentence."""
    r = d.rng
    text = filler(d) if r.random() < 0.5 else ""
    for kind in r.sample(list(values), len(values)):
        part = r.choice(PARTS[kind]).format(values[kind])
        gap = "" if not text else r.choice(BETWEEN) if r.random() < 0.6 else f" {filler(d)} "
        text += gap + part + (")" if gap == " (" else "")
    if r.random() < 0.4:
        text += f"{r.choice((' ', ', ', '; '))}{filler(d)}"
    text = text.strip()
    return text[0].upper() + text[1:] + r.choice((".", ".", ".", "!", "?", ""))


def filler(d: Draw) -> str:
    """One to four words; now and then one that is made up."""
    r = d.rng
    words = [r.choice(FILLERS) if r.random() < 0.92 else d.word() for _ in range(r.choice((1, 1, 2, 2, 3, 4)))]
    return " ".join(words)
