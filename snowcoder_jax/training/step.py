"""The train step: loss, gradients in microbatches, clip, AdamW, the skip of a broken update.

Shape legend: B batch, S positions, M microbatches, D hidden, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from snowcoder_jax import recipe
from snowcoder_jax.errors import InputError
from snowcoder_jax.model import decoder, loss
from snowcoder_jax.training.compiler_options import compiler_options
from snowcoder_jax.training.mesh import LOGICAL_TO_MESH, batch_sharding
from snowcoder_jax.training.optimizer import make_optimizer
from snowcoder_jax.training.state import TrainState, state_shapes, state_shardings

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]


@functools.cache
def make_train_step(
    model: recipe.Model,
    vocab_size: int,
    optimizer: recipe.Optimizer,
    hardware: recipe.Hardware,
    mesh: Mesh,
) -> TrainStep:
    """The jitted step (state, batch, learning rate) -> (state, metrics). It donates the state.

    The learning rate is an argument, so phases of one shape share one compiled step.
    The batch holds int32 ids [B, S+1], float32 weights [B, S] of the targets ids[:, 1:] and,
    where `model.attention` is `document`, int32 first_key [B, S]. The metrics are float32 or
    int32 scalars: loss (cross-entropy, nats a token), grad_norm (before the clip), num_tokens
    (the weights' sum), num_skipped and num_skipped_in_a_row; z_loss (a token, times its weight)
    where `optimizer.z_loss` is not 0.

    Raises:
      InputError: the devices cannot do what `hardware.remat` asks; see `check_remat`.
    """
    check_remat(hardware, mesh)
    transform = make_optimizer(optimizer, decoder.logical_axes(model))
    positions = PartitionSpec(LOGICAL_TO_MESH["batch"], LOGICAL_TO_MESH["sequence"])

    def split_positions(x_BS: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x_BS, NamedSharding(mesh, positions))

    def summed_loss(params: Any, batch: Batch) -> tuple[jax.Array, loss.LossSums]:
        first_key_BS = None
        if model.attention == "document":
            first_key_BS = split_positions(batch["first_key"])
        hidden_BSD = decoder.apply(
            params,
            model,
            vocab_size,
            split_positions(batch["ids"][:, :-1]),
            first_key_BS,
            compute_dtype=hardware.compute_dtype,
            remat=hardware.remat,
            scan_layers=hardware.scan_layers,
            mesh=mesh,
            attention_kernel=hardware.attention_kernel,
        )
        sums = loss.chunked_cross_entropy(
            hidden_BSD,
            decoder.output_embedding(params, model),
            split_positions(batch["ids"][:, 1:]),
            split_positions(batch["weights"]),
            chunk_tokens=hardware.loss_chunk_tokens,
            z_loss=optimizer.z_loss,
            mesh=mesh,
        )
        return sums.objective, sums

    def step(
        state: TrainState, batch: Batch, learning_rate: jax.Array
    ) -> tuple[TrainState, Metrics]:
        sums, grads = accumulated(jax.grad(summed_loss, has_aux=True), state.params, batch)
        num_divided = jnp.maximum(sums.weight, 1.0)
        grads = jax.tree.map(lambda grad: grad / num_divided, grads)
        grad_norm = optax.global_norm(grads)
        is_finite = jnp.isfinite(sums.objective) & jnp.isfinite(grad_norm)

        updates, opt_state = transform.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda p, u: p + learning_rate * u, state.params, updates)
        # A select, not a branch: it fuses into the update and costs no copy.
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(is_finite, new, old),
            (params, opt_state),
            (state.params, state.opt_state),
        )
        skipped = 1 - is_finite.astype(jnp.int32)
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            num_skipped=state.num_skipped + skipped,
            num_skipped_in_a_row=(state.num_skipped_in_a_row + 1) * skipped,
        )
        metrics = {
            "loss": sums.cross_entropy / num_divided,
            "grad_norm": grad_norm,
            "num_tokens": sums.weight,
            "num_skipped": new_state.num_skipped,
            "num_skipped_in_a_row": new_state.num_skipped_in_a_row,
        }
        if optimizer.z_loss:
            metrics["z_loss"] = sums.z_loss / num_divided
        return new_state, metrics

    def accumulated(
        grads_and_sums: Callable[..., Any], params: Any, batch: Batch
    ) -> tuple[loss.LossSums, Any]:
        """Both summed over the microbatches, so that each token weighs the same."""
        M = hardware.microbatches
        if M == 1:
            grads, sums = grads_and_sums(params, batch)
            return sums, grads

        def add(total: Any, microbatch: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, grads_and_sums(params, microbatch)), None

        # Every M-th row, so that each device's rows stay on it.
        microbatches = {
            name: x.reshape(-1, M, *x.shape[1:]).swapaxes(0, 1) for name, x in batch.items()
        }
        zero = jnp.zeros((), jnp.float32)
        none = (jax.tree.map(jnp.zeros_like, params), loss.LossSums(zero, zero, zero, zero))
        (grads, sums), _ = jax.lax.scan(add, none, microbatches)
        return sums, grads

    placed = state_shardings(state_shapes(model, vocab_size, optimizer, mesh))
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        step,
        in_shardings=(placed, batch_sharding(mesh), replicated),
        out_shardings=(placed, replicated),
        donate_argnums=0,
        compiler_options=compiler_options(mesh),
    )


def check_remat(hardware: recipe.Hardware, mesh: Mesh) -> None:
    """Raises InputError where `hardware.remat` would have no effect on the devices of `mesh`."""
    device = mesh.devices.flat[0]
    if hardware.remat == "offload" and all(
        memory.kind != "pinned_host" for memory in device.addressable_memories()
    ):
        raise InputError(
            f"hardware.remat: offload needs pinned host memory, which {device.platform} devices "
            "do not have here. Choose `attention` or `full`."
        )
    if hardware.remat != "none" and not hardware.scan_layers and device.platform == "cpu":
        # XLA's CPU backend drops the barriers that keep recomputations apart before it merges them.
        raise InputError(
            f"hardware.remat: {hardware.remat} keeps as much memory as `none` on a CPU where "
            "hardware.scan_layers is false. Choose `none`, or set scan_layers to true."
        )
