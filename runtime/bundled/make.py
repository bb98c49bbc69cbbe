"""Make the bundled model: `python -m ramify.runtime.bundled.make --seed 0 --out DIR [--steps N] [--measure-only]`.

Writes the text, trains the tokenizer on it, trains the model, saves an ordinary Hugging Face checkpoint folder and measures
it on held-out items. The same seed and number of steps give the same text and the same order of batches.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from . import MODEL_DIR


def train_into(folder: Path, *, seed: int, steps: int, compiled: bool, state: Path | None, start: Path | None) -> None:
    """Tokenizer, then model; the folder is a loadable checkpoint from the first save on.

    With `state`, the run can be stopped and continued from its last save, also towards another number of steps. With `start`,
    this is a second stage: it goes on from that checkpoint's tokenizer and weights, on text whose sentences vary freely.
    """
    import torch
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    from .batches import batches
    from .chat import END_OF_TEXT, END_OF_TURN
    from .corpus import training_text
    from .train import Batch, Body, Recipe, Sizes, checkpoint, train
    from .vocabulary import save_tokenizer, train_tokenizer

    torch.set_num_threads(1)  # the parallelism is in processes
    sizes = Sizes()
    continued = state is not None and state.with_suffix(".0").exists()
    if start is not None and not continued:
        folder.mkdir(parents=True, exist_ok=True)
        for file in start.iterdir():
            shutil.copyfile(file, folder / file.name)
    if continued or start is not None:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:
        tokenizer_text = training_text(seed)
        tokenizer = train_tokenizer("".join(text for text, _ in tokenizer_text()) for _ in range(40_000))
        save_tokenizer(tokenizer, folder, sizes.max_position_embeddings)
    stop, pad = tokenizer.token_to_id(END_OF_TURN), tokenizer.token_to_id(END_OF_TEXT)
    assert stop is not None and pad is not None

    torch.manual_seed(seed)
    body = Body(sizes)
    if start is not None:
        weights = load_file(start / "model.safetensors")
        body.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()})
    recipe = Recipe(steps=steps, seed=seed)
    if start is not None:  # gently: half as fast, and slower and slower over most of it
        recipe = dataclasses.replace(recipe, matrix_lr=recipe.matrix_lr / 2, other_lr=recipe.other_lr / 2, decay_share=0.7)
    print(json.dumps({"parameters": sum(p.numel() for p in body.parameters()), **dataclasses.asdict(recipe)}), flush=True)

    def save() -> None:
        checkpoint(body, folder, [stop, pad], pad)

    if not continued and start is None:
        save()

    def source() -> Iterator[list[Batch]]:
        text = training_text(seed + 1, vary=start is not None)
        return batches(text, tokenizer, seed=seed, pad_id=pad, copies_after=1200 if start is None else 0)

    train(body, recipe, source, save, log=lambda line: print(line, flush=True), compiled=compiled, state=state)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ramify.runtime.bundled.make", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of the text, the order of the batches and the first weights")
    parser.add_argument("--out", type=Path, default=MODEL_DIR, help="the checkpoint folder to write, or to measure")
    parser.add_argument("--steps", type=int, default=2800, help="optimiser steps of about 8,000 tokens")
    parser.add_argument("--measure-only", action="store_true", help="measure the checkpoint in --out and train nothing")
    parser.add_argument("--items", type=int, default=500, help="held-out items of each task")
    parser.add_argument("--no-compile", action="store_true", help="train without torch.compile (no C++ compiler needed)")
    parser.add_argument("--state", type=Path, help="a file to continue from, and to save the optimisers in")
    parser.add_argument("--from", dest="start", type=Path, metavar="DIR", help="a checkpoint to go on from, as a second stage")
    said = parser.parse_args(argv)
    if not said.measure_only:
        train_into(said.out, seed=said.seed, steps=said.steps, compiled=not said.no_compile, state=said.state,
                   start=said.start)
    from .measure import report

    print(report(said.out, items=said.items))


if __name__ == "__main__":
    main()
