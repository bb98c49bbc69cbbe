"""The training loop on a model of a few thousand parameters, and our compact Qwen3 beside that of transformers."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tokenizers import Tokenizer  # noqa: E402

from ramify.runtime.bundled import MODEL_DIR  # noqa: E402
from ramify.runtime.bundled.batches import batches, encode  # noqa: E402
from ramify.runtime.bundled.corpus import training_text  # noqa: E402
from ramify.runtime.bundled.train import Batch, Body, Recipe, Sizes, checkpoint, orthogonal, train, weighted_loss  # noqa: E402

MICRO = Sizes(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
              head_dim=16)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))


def micro(seed: int = 0) -> Body:
    torch.manual_seed(seed)
    return Body(MICRO)


def steps(tokenizer: Tokenizer):
    return batches(training_text(0), tokenizer, seed=0, pad_id=4091, tokens=256, per_step=2, pool=32, longest=128)


def test_ours_computes_what_transformers_computes(tmp_path):
    body = micro()
    for p in body.parameters():
        p.data = (p.data + torch.randn_like(p) * 0.1).bfloat16().float()
    checkpoint(body, tmp_path, [4093, 4091], 4091)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(0, MICRO.vocab_size, (2, 40))
    with torch.no_grad():
        ours = body(ids) @ body.embed_tokens.weight.T
        torch.testing.assert_close(ours, theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_the_loss_looks_at_weighted_tokens_only():
    body = micro()
    for p in body.parameters():
        p.data += torch.randn_like(p) * 0.1
    ids, weights = torch.randint(0, 4096, (3, 20)), (torch.rand(3, 20) < 0.3).float() * 0.5
    with torch.no_grad():
        logits = body(ids) @ body.embed_tokens.weight.T
        plain = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        torch.testing.assert_close(weighted_loss(body, Batch(ids, weights)), (plain * weights[:, 1:].flatten()).sum())


def test_weights_follow_their_tokens(tokenizer):
    document = [("<|im_start|>assistant\n", 0.0), ("Your dog is Velmo.<|im_end|>", 1.0), ("\n", 0.0)]
    [(ids, weights)] = encode(tokenizer, [document], 99)
    counted = [i for i, w in zip(ids, weights, strict=True) if w]
    assert tokenizer.decode(counted, skip_special_tokens=False) == "Your dog is Velmo.<|im_end|>"


def test_orthogonal_brings_the_singular_values_near_one():
    values = torch.linalg.svdvals(orthogonal(torch.randn(2, 24, 64)))
    assert values.min() > 0.4 and values.max() < 1.4


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_a_run_lowers_the_loss_and_is_the_same_twice_and_when_continued(tokenizer, tmp_path):
    def run(body, count, ranks=1, state=None):
        recipe = Recipe(steps=count, warmup_steps=1, decay_share=1e-9, save_every=3, log_every=1000)
        return train(body, recipe, lambda: steps(tokenizer), lambda: None, compiled=False, ranks=ranks, state=state)

    whole = run(micro(), 6)
    assert whole[-1] < whole[0]
    assert run(micro(), 6) == whole
    half = run(micro(), 3, state=tmp_path / "kept.pt")
    rest = run(micro(1), 6, state=tmp_path / "kept.pt")
    assert half + rest == pytest.approx(whole, rel=1e-5)
