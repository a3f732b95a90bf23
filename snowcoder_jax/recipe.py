"""The whole run in one object: typed, frozen, strict.

`load_recipe` reads a YAML file, applies `field.of.recipe=value` overrides, and reports every
fault at once. `configs/arctic_snowcoder_1b3.yaml` carries each figure of the paper (arXiv
2409.02326) with a note on which are stated and which are chosen; `configs/local.yaml` is the
same schema at the size of a laptop.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from snowcoder_jax import languages, strict
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe_corpus import Corpus, Source
from snowcoder_jax.recipe_synthesis import Synthesis
from snowcoder_jax.strict import Fault
from snowcoder_jax.text.licenses import NAMED_BY_USER

# What a shipped recipe leaves to its user holds this.
PLACEHOLDER = "YOUR-"

Grouping = Literal["language_then_repository", "repository", "repository_then_language", "file"]
# `auto`: by the platform of the mesh; one that cannot honour the mask is refused.
AttentionKernel = Literal["auto", "splash", "cudnn", "mosaic", "blockwise", "reference"]
# What the backward pass finds and what it computes again: `model/decoder.py`'s `Decoder`.
Remat = Literal["none", "attention", "minimal", "full", "offload"]


@dataclass(frozen=True)
class RopeScaling:
    """How a base model stretched its rotary positions; new models have none.

    `linear` divides all frequencies by `factor` (arXiv 2306.15595); `llama3` those whose wavelength
    exceeds `original_max_positions` / `low_freq_factor`, blending up to / `high_freq_factor`.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


@dataclass(frozen=True)
class Model:
    """A Llama-2 style decoder (paper section 2)."""

    hidden_dim: int = 2048
    mlp_dim: int = 5632
    num_layers: int = 24
    num_heads: int = 16
    num_kv_heads: int = 16
    head_dim: int = 128
    max_sequence_length: int = 8192
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    tie_embeddings: bool = True
    attention: Literal["causal", "document"] = "causal"
    initializer_range: float = 0.02


@dataclass(frozen=True)
class Tokenizer:
    """Byte-level BPE, trained on a seeded sample of at most `sample_bytes` of the corpus."""

    vocab_size: int = 64_000
    sample_bytes: int = 20_000_000_000


@dataclass(frozen=True)
class Annotator:
    """The quality annotator (paper section 3.2): a BERT encoder, a linear head, sections.

    `encoder` is a folder in Hugging Face format, or `package:NAME` for an installed package
    that carries one. `max_files` bounds how many files are scored (None: all); the sample is
    seeded and taken within each language in proportion.
    """

    encoder: str = "Snowflake/snowflake-arctic-embed-m"
    window_tokens: int = 512
    num_sections: int = 3
    positives: tuple[str, ...] = ("shipped_problems", "good_modules")
    num_positives: int = 300_000
    num_negatives: int = 300_000
    tune_encoder: bool = False
    learning_rate: float = 3e-4
    epochs: int = 20
    batch_size: int = 256
    heldout_share: float = 0.1
    max_files: int | None = None


@dataclass(frozen=True)
class Selection:
    """Which documents, in which order (paper sections 2 and 3.2).

    `source: corpus` takes kept documents; `source: synthetic` the accepted synthetic ones.
    `order: natural` keeps all of them; `quality` takes the best of each language, `random` a
    seeded draw, until `tokens` is met, each language by its natural share of tokens. `fim_share`
    of the files become fill-in-the-middle (off in the paper's recipe).
    """

    name: str
    source: Literal["corpus", "synthetic"] = "corpus"
    order: Literal["natural", "quality", "random"] = "natural"
    tokens: int | None = None
    language_shares: dict[str, float] = field(default_factory=dict)
    grouping: Grouping = "language_then_repository"
    metadata_share: float = 0.5
    fim_share: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """Learning rate by step: linear warm-up from 0 to `peak`, then by `kind` to `final`.

    A length is given in steps or in tokens (to the nearest step), not in both.
    `warmup_stable_decay` stays at `peak` until its last `decay_steps`, in which it goes to `final`
    along `decay_shape`; the other kinds decay from the warm-up to the end.
    """

    kind: Literal["cosine", "linear", "constant", "warmup_stable_decay"] = "linear"
    peak: float = 5.3e-4
    final: float = 0.0
    warmup_steps: int = 0
    warmup_tokens: int | None = None
    decay_steps: int | None = None
    decay_tokens: int | None = None
    decay_shape: Literal["linear", "cosine", "one_minus_sqrt"] = "linear"


@dataclass(frozen=True)
class Part:
    """A share of a phase's data: a selection, seen at most `repeat` times.

    Where a part holds less than its weight asks for, the part with `fill` takes the rest.
    `language_weights` say how often a language is drawn against its natural share of the part
    (`{Python: 2.0}`: twice as often as it lies there; 0 leaves it out; 1 where none is given).
    """

    selection: str
    weight: float = 1.0
    repeat: int = 1
    fill: bool = False
    language_weights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """One phase of the curriculum.

    `starts_from: null` means fresh weights, or the recipe's `base_model` where it names one.
    """

    name: str
    tokens: int
    batch_size: int
    sequence_length: int
    schedule: Schedule
    data: tuple[Part, ...]
    starts_from: str | None = None
    keep_moments: bool = False
    checkpoint_every_steps: int = 1_000

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.sequence_length

    @property
    def num_steps(self) -> int:
        """Steps to the nearest whole one, as the paper's 11,921 of 50 B tokens."""
        return round(self.tokens / self.tokens_per_step)

    @property
    def num_warmup_steps(self) -> int:
        if self.schedule.warmup_tokens is None:
            return self.schedule.warmup_steps
        return round(self.schedule.warmup_tokens / self.tokens_per_step)

    @property
    def num_decay_steps(self) -> int:
        """Of `warmup_stable_decay` the steps it names; of other kinds all after the warm-up."""
        if self.schedule.decay_tokens is not None:
            return round(self.schedule.decay_tokens / self.tokens_per_step)
        if self.schedule.decay_steps is not None:
            return self.schedule.decay_steps
        return self.num_steps - self.num_warmup_steps


@dataclass(frozen=True)
class Control:
    """A comparison arm: the phase `of` again, its data drawn from `selection` instead."""

    name: str
    of: str
    selection: str


@dataclass(frozen=True)
class Optimizer:
    """AdamW (Adam stated; the rest chosen, RECIPE section 2).

    `z_loss` weighs the squared log of the softmax's normaliser, which it holds near 0 (PaLM,
    arXiv 2204.02311 section 5, takes 1e-4); it is not part of the loss that is reported.
    """

    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    z_loss: float = 0.0
    max_skipped_in_a_row: int = 10


@dataclass(frozen=True)
class Checkpointing:
    """Which checkpoints of a phase are kept: its last, for ever; while it trains the last
    `keep_last`; and those at a multiple of `keep_every_steps`. How often one is made is the
    phase's `checkpoint_every_steps`."""

    keep_last: int = 2
    keep_every_steps: int | None = None


@dataclass(frozen=True)
class Sandbox:
    """Limits of one program run in the sandbox."""

    seconds: float = 5.0
    memory_bytes: int = 512 * 1024 * 1024
    processes: int = 16
    workers: int = 2


@dataclass(frozen=True)
class Evaluation:
    """What is measured after each phase."""

    max_heldout_bytes: int = 20_000_000
    min_language_bytes: int = 20_000
    max_new_tokens: int = 512
    batch_size: int = 16
    bootstrap_samples: int = 1_000
    ngram_order: int = 5
    sandbox: Sandbox = Sandbox()


@dataclass(frozen=True)
class Mesh:
    """Devices along each axis; -1 means all that are left."""

    replica: int = 1
    fsdp: int = -1
    context: int = 1
    tensor: int = 1


@dataclass(frozen=True)
class Hardware:
    """How the step is laid out and computed; only `compute_dtype` changes what is learnt.

    `beam_options` are Apache Beam's own (`--runner=DataflowRunner`, ...) for every corpus stage;
    without any, a stage runs in this process, or in `beam_workers` of them. Where training makes
    no step for `hang_minutes`, every process prints its stacks (0: never). `scan_layers`: one
    program of a block goes through all layers; false: each layer has its own, which takes longer
    to compile and spares the stacks of saved activations.
    """

    mesh: Mesh = Mesh()
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    remat: Remat = "minimal"
    scan_layers: bool = True
    microbatches: int = 1
    loss_chunk_tokens: int = 2_048
    attention_kernel: AttentionKernel = "auto"
    hang_minutes: float = 30.0
    beam_workers: int = 1
    beam_options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tracking:
    """What is told of training besides metrics.jsonl; nothing here changes what is learnt.

    `wandb_project`: the project of Weights & Biases that gets a run for each phase.
    `profile_steps`: first and last step, counted from 1, of which each phase writes a profiler
    trace to `profiles/` of the run's folder.
    """

    tensorboard: bool = False
    wandb_project: str | None = None
    profile_steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A run, whole. See the module's docstring.

    `base_model` is a folder in Hugging Face Llama format: phases that start from no other start
    from its weights, and `model` and the tokenizer are its own.
    """

    name: str
    sources: tuple[Source, ...]
    selections: tuple[Selection, ...]
    phases: tuple[Phase, ...]
    seed: int = 0
    output: str = "."
    base_model: str | None = None
    model: Model = Model()
    tokenizer: Tokenizer = Tokenizer()
    corpus: Corpus = field(default_factory=Corpus)
    annotator: Annotator = Annotator()
    synthesis: Synthesis | None = None
    controls: tuple[Control, ...] = ()
    optimizer: Optimizer = Optimizer()
    evaluation: Evaluation = Evaluation()
    checkpointing: Checkpointing = Checkpointing()
    hardware: Hardware = Hardware()
    tracking: Tracking = Tracking()

    def phase(self, name: str) -> Phase:
        """The phase of that name; a control arm is a phase too."""
        return next(p for p in self.all_phases() if p.name == name)

    def selection(self, name: str) -> Selection:
        return next(s for s in self.selections if s.name == name)

    def packed_length(self, selection: str) -> int:
        """The sequence length that a selection is packed with: the first phase's that reads it.

        Phases of another length cut the same tokens anew as they read them.
        """
        return next(
            phase.sequence_length
            for phase in self.all_phases()
            if any(part.selection == selection for part in phase.data)
        )

    def all_phases(self) -> tuple[Phase, ...]:
        """The phases in order, each followed by the control arms that mirror it."""
        result = []
        for phase in self.phases:
            result.append(phase)
            for control in self.controls:
                if control.of == phase.name:
                    parts = tuple(
                        dataclasses.replace(part, selection=control.selection)
                        for part in phase.data[:1]
                    )
                    result.append(dataclasses.replace(phase, name=control.name, data=parts))
        return tuple(result)


def fingerprint(*parts: Any) -> str:
    """16 hex digits that name a set of parameters: the address of what they produce.

    Fields that are off (None, False, empty) are left out: a new feature, which is off, changes
    no address, and throws no trained run away.
    """
    text = json.dumps([_telling(strict.to_plain(p)) for p in parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _telling(value: Any) -> Any:
    if isinstance(value, dict):
        told = {name: _telling(item) for name, item in value.items()}
        return {k: v for k, v in told.items() if not (v is None or v is False or v in ([], {}))}
    return [_telling(item) for item in value] if isinstance(value, list) else value


def load_recipe(
    path: str, overrides: tuple[str, ...] = (), extra_sources: tuple[str, ...] = ()
) -> Recipe:
    """Read a recipe file.

    Args:
      path: a YAML file.
      overrides: `field.of.recipe=value`; list items are addressed by their name.
      extra_sources: folders to add as sources.

    Raises:
      InputError: with all faults, one a line.
    """
    try:
        with open(path, encoding="utf-8") as f:
            data = yaml.safe_load(f)
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}). Name an existing recipe.") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: is not valid YAML: {e}. Mend that line.") from e
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds no mapping. Start from configs/local.yaml.")
    return parse_recipe(data, overrides, extra_sources, where=path)


def parse_recipe(
    data: dict[str, Any],
    overrides: tuple[str, ...] = (),
    extra_sources: tuple[str, ...] = (),
    where: str = "recipe",
) -> Recipe:
    """`load_recipe` on plain data; `data` is changed in place by the overrides."""
    faults: list[Fault] = []
    for assignment in overrides:
        strict.override(data, assignment, faults)
    for folder in extra_sources:
        name = "folder_" + hashlib.sha256(folder.encode()).hexdigest()[:8]
        # Who names a folder on the line vouches for it where it has no licence file.
        entry = {"name": name, "kind": "folder", "path": folder, "license": NAMED_BY_USER}
        data.setdefault("sources", []).append(entry)
    if data.get("base_model") is not None:
        from snowcoder_jax import base_model

        base_model.fill_in(data, faults)
    recipe = strict.load(Recipe, data, faults)
    if recipe is not None:
        from snowcoder_jax.recipe_checks import check_recipe

        faults.extend(check_recipe(recipe))
    if faults or recipe is None:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise InputError(f"{where}: {len(faults)} fault(s)\n{lines}")
    return recipe


def known_languages() -> list[str]:
    return [language.name for language in languages.LANGUAGES]
