"""The peer: transformers' LlamaForCausalLM with fused AdamW, at its best.

    python -m train_parts.pytorch SETTING BATCH_SIZE STEPS REMAT MICROBATCHES

Its attention is PyTorch's scaled_dot_product_attention, told that the mask is causal: as
transformers calls it while training, it would be given a mask of S x S, which rules out the fast
kernels. No cache of keys and values is kept.
REMAT is none or full (gradient checkpointing). On a GPU the model is compiled with torch.compile.
Prints one JSON object: the seconds of each step after the first, the peak memory, the last loss.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    LlamaConfig,
    LlamaForCausalLM,
)

from train_parts.settings import Setting, setting, timed


def causal_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """In the form of transformers' AttentionInterface; heads before positions."""
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling
    )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register("causal_sdpa", causal_attention)
AttentionMaskInterface.register("causal_sdpa", lambda *_, **__: None)


def make_model(of: Setting) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=of.vocab_size,
        hidden_size=of.hidden_dim,
        intermediate_size=of.mlp_dim,
        num_hidden_layers=of.num_layers,
        num_attention_heads=of.num_heads,
        max_position_embeddings=of.sequence_length,
        tie_word_embeddings=True,
        attn_implementation="causal_sdpa",
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def measure(of: Setting, num_steps: int, remat: str, device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    model = make_model(of).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=of.learning_rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    ids = torch.from_numpy(of.ids()).to(device)
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    parts = list(zip(inputs.chunk(of.microbatches), targets.chunk(of.microbatches), strict=True))
    is_narrow = of.dtype == "bfloat16"
    forward = model
    if device != "cpu":
        torch.set_float32_matmul_precision("high")
        if remat == "full":
            model.gradient_checkpointing_enable({"use_reentrant": False})
        forward = torch.compile(model)

    def step() -> float:
        total = torch.zeros((), device=device)
        for part, labels in parts:
            with torch.autocast(device, torch.bfloat16, enabled=is_narrow):
                loss = forward(input_ids=part, shift_labels=labels, labels=labels).loss
            loss = loss / len(parts)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total.item()  # waits for the device

    times = timed(step, num_steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device != "cpu":
        peak = torch.cuda.max_memory_allocated()
    return {**times, "peak_bytes": peak}


def main() -> None:
    name, batch_size, num_steps, remat, microbatches = sys.argv[1:]
    device = "cuda"
    if name == "cpu":
        device = "cpu"
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    of = setting(name, int(batch_size), int(microbatches))
    print(json.dumps(measure(of, int(num_steps), remat, device)))


if __name__ == "__main__":
    main()
