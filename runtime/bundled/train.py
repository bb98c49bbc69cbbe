"""Train the bundled model: a compact Qwen3 in plain torch, Muon for the matrices, AdamW for the rest.

The module below computes what Hugging Face's `Qwen3ForCausalLM` computes (a test holds them equal) and uses the
same parameter names, so that its state dict is the checkpoint. It is written out here because logits are wanted
only where the loss looks, and because one fixed set of shapes lets `torch.compile` fuse the rest.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """The architecture, in Hugging Face's words. 4.6 million parameters, the tied embedding counted once."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0


@dataclass(frozen=True)
class Recipe:
    """How long and how fast: warm-up, constant, then linear decay to zero over the last `decay_share` of the steps."""

    steps: int = 2800
    seed: int = 0
    matrix_lr: float = 0.02
    other_lr: float = 3e-3
    warmup_steps: int = 60
    decay_share: float = 0.25
    save_every: int = 200
    log_every: int = 20

    def scale(self, step: int) -> float:
        """The factor on both learning rates at a step (0-based)."""
        left = (self.steps - step) / max(1.0, self.decay_share * self.steps)
        return min(1.0, (step + 1) / self.warmup_steps, left)


@dataclass(frozen=True)
class Batch:
    """Rows of one padded length. ids: [rows, length] int64. weights: [rows, length] fp32, how much the loss of
    predicting *this* token counts (0 for padding, for what users say and for the first token)."""

    ids: Tensor
    weights: Tensor


class Layer(nn.Module):
    def __init__(self, s: Sizes):
        super().__init__()
        q, kv = s.num_attention_heads * s.head_dim, s.num_key_value_heads * s.head_dim
        self.sizes = s
        self.input_layernorm = nn.RMSNorm(s.hidden_size, s.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(s.hidden_size, s.rms_norm_eps)
        self.self_attn = nn.ModuleDict({
            "q_proj": nn.Linear(s.hidden_size, q, bias=False),
            "k_proj": nn.Linear(s.hidden_size, kv, bias=False),
            "v_proj": nn.Linear(s.hidden_size, kv, bias=False),
            "o_proj": nn.Linear(q, s.hidden_size, bias=False),
            "q_norm": nn.RMSNorm(s.head_dim, s.rms_norm_eps),
            "k_norm": nn.RMSNorm(s.head_dim, s.rms_norm_eps),
        })
        self.mlp = nn.ModuleDict({
            "gate_proj": nn.Linear(s.hidden_size, s.intermediate_size, bias=False),
            "up_proj": nn.Linear(s.hidden_size, s.intermediate_size, bias=False),
            "down_proj": nn.Linear(s.intermediate_size, s.hidden_size, bias=False),
        })

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, causal: Tensor, wanted: Tensor | None = None) -> Tensor:
        """x: [rows, length, hidden]; cos, sin: [length, head_dim]; causal: [length, length], 0 or -inf, added to the scores.

        wanted: int64 positions in the flattened [rows * length]; then only they are returned, [wanted, hidden]: the last
        layer need not carry on with tokens that no loss looks at. Otherwise the shape of x.
        """
        a, s = self.self_attn, self.sizes
        rows, length, _ = x.shape
        h = self.input_layernorm(x)
        q = a["q_proj"](h).view(rows, length, s.num_attention_heads, s.head_dim)
        k = a["k_proj"](h).view(rows, length, s.num_key_value_heads, s.head_dim)
        v = a["v_proj"](h).view(rows, length, s.num_key_value_heads, s.head_dim)
        q = rotate(a["q_norm"](q).transpose(1, 2), cos, sin).to(v.dtype)
        k = rotate(a["k_norm"](k).transpose(1, 2), cos, sin).to(v.dtype)
        o = attention(q, k, v.transpose(1, 2), causal).transpose(1, 2).reshape(rows, length, -1)
        if wanted is not None:
            x, o = x.flatten(0, 1)[wanted], o.flatten(0, 1)[wanted]
        x = x + a["o_proj"](o)
        h = self.post_attention_layernorm(x)
        return x + self.mlp["down_proj"](F.silu(self.mlp["gate_proj"](h)) * self.mlp["up_proj"](h))


def attention(q: Tensor, k: Tensor, v: Tensor, causal: Tensor) -> Tensor:
    """q: [rows, heads, length, head_dim]; k, v: with fewer heads. Returns the shape of q.

    Written out because the fused kernel for CPUs takes two to four times as long for rows as short as these, and because
    the query heads of a group can then share one product with their keys.
    """
    rows, heads, length, size = q.shape
    shared = k.shape[1]
    flat = (rows * shared, -1, size)
    scores = torch.bmm((q * size**-0.5).reshape(flat), k.reshape(flat).mT).view(rows * shared, heads // shared, length, length)
    weights = (scores.float() + causal).softmax(-1).to(v.dtype)
    return torch.bmm(weights.view(rows * shared, -1, length), v.reshape(flat)).view(q.shape)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, halves paired as in Hugging Face. x: [..., length, head_dim]."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((-right, left), -1) * sin


class Body(nn.Module):
    """Everything before the logits; its parameters sit under `model.` in the checkpoint."""

    def __init__(self, s: Sizes):
        super().__init__()
        self.sizes = s
        self.embed_tokens = nn.Embedding(s.vocab_size, s.hidden_size)
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.num_hidden_layers))
        self.norm = nn.RMSNorm(s.hidden_size, s.rms_norm_eps)
        for name, p in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(p)  # every layer starts as the identity
            elif p.dim() == 2:
                nn.init.normal_(p, std=0.02 if "embed" in name else s.hidden_size**-0.5)

    def forward(self, ids: Tensor, wanted: Tensor | None = None) -> Tensor:
        """ids: [rows, length] int64. Returns normed hidden states [rows, length, hidden], or of `wanted` only (see `Layer`)."""
        s, length = self.sizes, ids.shape[1]
        inverse = s.rope_theta ** (-torch.arange(0, s.head_dim, 2).float() / s.head_dim)
        angles = torch.arange(length).float()[:, None] * inverse
        angles = torch.cat((angles, angles), -1)
        cos, sin = angles.cos(), angles.sin()
        causal = torch.full((length, length), -torch.inf).triu(1)
        x = self.embed_tokens(ids)
        for layer in self.layers[:-1]:
            x = layer(x, cos, sin, causal)
        return self.norm(self.layers[-1](x, cos, sin, causal, wanted))


def weighted_loss(body: Body, batch: Batch) -> Tensor:
    """The weighted *sum* of cross entropies (nats) of one batch; logits are made only where the weight is not 0."""
    weights = F.pad(batch.weights[:, 1:], (0, 1)).flatten()  # of the token that follows each position
    wanted = weights.nonzero().squeeze(1)
    logits = F.linear(body(batch.ids, wanted), body.embed_tokens.weight)
    targets = batch.ids.roll(-1, 1).flatten()[wanted]
    return (F.cross_entropy(logits.float(), targets, reduction="none") * weights[wanted]).sum()


class Muon:
    """Momentum, orthogonalised by five Newton-Schulz steps. Source: Jordan et al., 2024, "Muon".

    Matrices of one shape are treated as a stack, since one batched product costs less than many small ones.
    """

    def __init__(self, matrices: list[nn.Parameter], momentum: float = 0.95):
        self.momentum = momentum
        self.stacks: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for p in matrices:
            self.stacks.setdefault(tuple(p.shape), []).append(p)
        self.velocity = {shape: torch.zeros(len(ps), *shape) for shape, ps in self.stacks.items()}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        for shape, ps in self.stacks.items():
            grads = torch.stack([p.grad for p in ps if p.grad is not None])
            velocity = self.velocity[shape].lerp_(grads, 1 - self.momentum)
            updates = orthogonal(grads.lerp_(velocity, self.momentum))
            scale = lr * max(1.0, shape[0] / shape[1]) ** 0.5
            for p, update in zip(ps, updates, strict=True):
                p.add_(update, alpha=-scale)


def orthogonal(g: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, nearly. g: [n, rows, columns] fp32."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = (g / (g.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Rank:
    """One of the processes that train together: it computes its share of every step's batches, and owns, with their
    optimisers, the parameters of every so manieth layer (and rank 0 the embedding and all the vectors).

    Parameters and gradients lie in shared memory. Processes of one thread each meet twice a step, where threads would meet
    at every operation, and so lose little when the machine is busy.
    """

    def __init__(self, body: Body, recipe: Recipe, grads: Tensor, rank: int):
        self.body, self.rank, self.ranks, self.grads = body, rank, grads.shape[0], grads
        start = 0
        for p in body.parameters():
            p.grad = grads[rank, start:start + p.numel()].view_as(p)
            start += p.numel()
        mine = [p for i, layer in enumerate(body.layers) if i % self.ranks == rank for p in layer.parameters() if p.dim() == 2]
        self.muon = Muon(mine)
        matrices = {id(p) for layer in body.layers for p in layer.parameters() if p.dim() == 2}
        others = [p for p in body.parameters() if id(p) not in matrices] if rank == 0 else []
        self.adam = None
        if others:
            self.adam = torch.optim.AdamW(others, lr=recipe.other_lr, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)
        self.owned = {id(p) for p in (*mine, *others)}

    def compute(self, batches: list[Batch]) -> float:
        """Fill this rank's gradients from its share of a step's batches. Returns its share of the mean loss."""
        total = sum(float(b.weights[:, 1:].sum()) for b in batches)
        self.grads[self.rank].zero_()
        value = 0.0
        for batch in batches[self.rank::self.ranks]:
            with torch.autocast("cpu", torch.bfloat16):
                loss = weighted_loss(self.body, batch) / total
            loss.backward()
            value += loss.item()
        return value

    @torch.no_grad()
    def update(self, recipe: Recipe, step: int) -> None:
        """Move the parameters that this rank owns, by the gradients of all ranks."""
        start = 0
        for p in self.body.parameters():
            if id(p) in self.owned:
                for other in range(self.ranks):
                    if other != self.rank and p.grad is not None:
                        p.grad += self.grads[other, start:start + p.numel()].view_as(p)
            start += p.numel()
        scale = recipe.scale(step)
        self.muon.step(recipe.matrix_lr * scale)
        if self.adam:
            for group in self.adam.param_groups:
                group["lr"] = recipe.other_lr * scale
            self.adam.step()

    def save(self, path: Path, step: int) -> None:
        """Keep what a run needs to be continued; each rank has a file of its own."""
        state = {"step": step, "velocity": self.muon.velocity, "adam": self.adam and self.adam.state_dict(),
                 "body": self.body.state_dict() if self.rank == 0 else None}
        torch.save(state, path.with_suffix(f".{self.rank}"))

    def load(self, path: Path) -> int:
        """Take up what `save` kept. Returns the steps done."""
        kept = torch.load(path.with_suffix(f".{self.rank}"))
        self.muon.velocity = kept["velocity"]
        if self.adam:
            self.adam.load_state_dict(kept["adam"])
            self.body.load_state_dict(kept["body"])
        return kept["step"]


@dataclass(frozen=True)
class Shared:
    """What the processes of a run have in common."""

    body: Body
    recipe: Recipe
    source: Callable[[], Iterator[list[Batch]]]
    grads: Tensor  # [ranks, parameters] fp32
    values: Tensor  # [ranks] fp32, each rank's share of the loss of this step
    barrier: Barrier
    compiled: bool
    state: Path | None


def train(body: Body, recipe: Recipe, source: Callable[[], Iterator[list[Batch]]], save: Callable[[], None], *,
          log: Callable[[str], None] = print, compiled: bool = True, ranks: int = 2, state: Path | None = None) -> list[float]:
    """Change `body` in place, in `ranks` processes. Returns the loss of every step done here.

    source: gives the optimiser steps from step 0 on; those that were done before are drawn and dropped.
    state: where each rank keeps what is needed to continue (a suffix is added); read if it is there.
    """
    torch.set_num_threads(1)  # also: a process that never started threads can be forked
    body.share_memory()
    count = sum(p.numel() for p in body.parameters())
    fork = multiprocessing.get_context("fork")
    shared = Shared(body, recipe, source, torch.zeros(ranks, count).share_memory_(), torch.zeros(ranks).share_memory_(),
                    fork.Barrier(ranks, timeout=900), compiled, state)
    others = [fork.Process(target=work, args=(shared, rank), daemon=True) for rank in range(1, ranks)]
    for process in others:
        process.start()
    losses = work(shared, 0, save, log)
    for process in others:
        process.join()
    return losses


def work(shared: Shared, rank: int, save: Callable[[], None] | None = None,
         log: Callable[[str], None] | None = None) -> list[float]:
    """The loop of one process; rank 0 also saves and logs."""
    body, recipe, state = shared.body, shared.recipe, shared.state
    me = Rank(body, recipe, shared.grads, rank)
    first = me.load(state) if state and state.with_suffix(".0").exists() else 0
    if shared.compiled:
        for layer in body.layers:  # one graph serves every layer
            layer.compile(dynamic=True)
    steps = shared.source()
    for _ in range(first):
        next(steps)
    shared.barrier.wait()
    losses: list[float] = []
    tokens, began = 0, time.perf_counter()
    for step in range(first, recipe.steps):
        batches = next(steps)
        shared.values[rank] = me.compute(batches)
        shared.barrier.wait()
        me.update(recipe, step)
        losses.append(float(shared.values.sum()))
        shared.barrier.wait()
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"The loss is {losses[-1]} at step {step}. Lower the learning rate.")
        tokens += sum(b.ids.numel() for b in batches)
        if step + 1 == recipe.steps or (step + 1) % recipe.save_every == 0:
            if state:
                me.save(state, step + 1)
            if save:
                save()
        if log and (step + 1) % recipe.log_every == 0:
            seconds = time.perf_counter() - began
            recent = sum(losses[-recipe.log_every:]) / min(len(losses), recipe.log_every)
            log(f"step {step + 1}/{recipe.steps} loss {recent:.4f} tokens {tokens} tokens/s {tokens / seconds:.0f} "
                f"minutes {seconds / 60:.1f}")
    return losses


def checkpoint(body: Body, folder: Path, stop_ids: list[int], pad_id: int) -> None:
    """Write config.json, generation_config.json and model.safetensors (bf16) as transformers would read them."""
    s = asdict(body.sizes)
    theta = s.pop("rope_theta")
    config = {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", **s, "hidden_act": "silu",
        "rope_theta": theta, "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "attention_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": True, "initializer_range": 0.02,
        "use_sliding_window": False, "use_cache": True, "torch_dtype": "bfloat16",
        "bos_token_id": None, "eos_token_id": stop_ids[0], "pad_token_id": pad_id,
    }
    generation = {"bos_token_id": None, "eos_token_id": stop_ids, "pad_token_id": pad_id, "do_sample": False}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    weights = {f"model.{n}": p.detach().bfloat16().contiguous() for n, p in body.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
