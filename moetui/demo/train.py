"""Trains the embedded model from a seed: `python -m moetui.demo.train [--output DIR]`.

The same seed, number of steps and thread count give the same weights on the same processor type and the same versions
of torch, transformers and tokenizers: the corpus and its order follow from the seed alone, and only deterministic
kernels are allowed, but the order in which a kernel adds floats is its own.
"""

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, NoReturn

import torch
import transformers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerBase
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from moetui.demo import DOMAINS, PROMPTS, Domain, model_path
from moetui.demo._card import write_card
from moetui.demo._figures import Figures
from moetui.demo._measure import measure
from moetui.demo._muon import Muon
from moetui.demo._tokenizer import train_tokenizer
from moetui.demo.corpus import training_documents
from moetui.routing import MoetuiError, UsageError, drawable

CONTEXT: Final = 512
# Small steps: at three million tokens in all, the number of updates limits what is learnt, not their noise.
TOKENS_PER_STEP: Final = 1024
ADAM_RATE: Final = 3e-3
MUON_RATE: Final = 0.02
# Documents that the tokenizer learns from; words and names in one token are easier to take up again later.
TOKENIZER_DOCUMENTS: Final[dict[Domain, int]] = {
    domain: {"story": 600, "french": 800}.get(domain, 300) for domain in DOMAINS
}
# Stories and French are what a newcomer types first, and natural language needs the most practice.
SHARES: Final[dict[Domain, float]] = {domain: {"story": 2.0, "french": 1.5}.get(domain, 1.0) for domain in DOMAINS}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a training run follows from."""

    seed: int = 1
    steps: int = 2000
    threads: int = 2
    warmup: int = 100


def configuration(tokenizer: PreTrainedTokenizerBase) -> MixtralConfig:
    """The architecture: Mixtral, 6 layers of 8 experts, two a token, 3.4 million parameters."""
    return MixtralConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=160,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=8,
        num_experts_per_tok=2,
        # One over the root of the width: the usual 0.02 is meant for wide models and makes this one learn far slower.
        initializer_range=0.088,
        router_aux_loss_coef=0.01,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def token_stream(tokenizer: PreTrainedTokenizerBase, total: int, seed: int) -> torch.Tensor:
    """`total` token ids: whole documents of all domains, mixed, each from begin to end token."""
    pieces: list[list[int]] = []
    weight = sum(SHARES.values())
    for domain in DOMAINS:
        missing = math.ceil(total * SHARES[domain] / weight)
        for text in training_documents(domain, seed):
            ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
            pieces.append(ids)
            missing -= len(ids)
            if missing <= 0:
                break
    Random(seed).shuffle(pieces)
    return torch.tensor([token for piece in pieces for token in piece][:total])


def batches(stream: torch.Tensor, begin: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Steps of `TOKENS_PER_STEP` token ids with their positions, both `[sequences, CONTEXT]`.

    Positions start again at every `begin` token, which keeps a document from attending to the one before it: names and
    numbers are then taken up from the right place far sooner. Every fourth step counts through, so that the whole
    context is practised too.
    """
    for step, tokens in enumerate(torch.split(stream, TOKENS_PER_STEP)):
        ids = tokens.view(-1, CONTEXT)
        through = torch.arange(CONTEXT).expand_as(ids)
        if step % 4 == 3:
            yield ids, through
        else:
            yield ids, through - torch.where(ids == begin, through, 0).cummax(1).values


def balance_loss(router_logits: tuple[torch.Tensor, ...], config: MixtralConfig) -> torch.Tensor:
    """The load-balancing loss, mean over layers (Fedus et al. 2021, equations 4 to 6).

    Layer by layer, because the pooled sum that the model computes itself lets one layer collapse if another makes up.
    """
    experts, top_k = config.num_local_experts, config.num_experts_per_tok
    each = [load_balancing_loss_func((logits,), experts, top_k) for logits in router_logits]
    return torch.stack(each).mean()


def rate_scale(step: int, settings: Settings) -> float:
    """The learning rate as a share of its peak: linear warm-up, then a cosine down to a twentieth."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.05 + 0.475 * (1 + math.cos(math.pi * done))


class Optimiser:
    """Muon for attention and experts; AdamW for what is no linear map inside a layer: embedding, routers, norms."""

    def __init__(self, model: MixtralForCausalLM) -> None:
        self._model = model
        inner = [w for name, w in model.named_parameters() if _is_inner_matrix(name, w)]
        others = [w for name, w in model.named_parameters() if not _is_inner_matrix(name, w)]
        matrices, vectors = [w for w in others if w.dim() > 1], [w for w in others if w.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        self._muon = Muon(inner)
        self._adam = torch.optim.AdamW(groups, betas=(0.9, 0.98), foreach=True)

    def step(self, scale: float) -> None:
        """Clip the gradients to norm 1, update at `scale` times the peak rates, and clear the gradients."""
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        for group in self._adam.param_groups:
            group["lr"] = ADAM_RATE * scale
        self._adam.step()
        self._muon.step(MUON_RATE * scale)
        self._model.zero_grad()


def _is_inner_matrix(name: str, weight: torch.Tensor) -> bool:
    return weight.dim() > 1 and "embed" not in name and "mlp.gate." not in name


def train(settings: Settings, console: Console) -> tuple[MixtralForCausalLM, PreTrainedTokenizerBase]:
    """Train tokenizer and model, with a progress bar on `console`. Sets torch's seed, threads and determinism."""
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(settings.seed)
    console.print("writing the corpus and learning the tokens ...")
    tokenizer = train_tokenizer(_sample(settings.seed), CONTEXT)
    stream = token_stream(tokenizer, settings.steps * TOKENS_PER_STEP, settings.seed)
    model = MixtralForCausalLM(configuration(tokenizer))
    optimiser = Optimiser(model)
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("loss {task.fields[loss]:.2f}"), console=console) as progress:
        task = progress.add_task("training", total=settings.steps, loss=math.nan)
        for step, batch in enumerate(batches(stream, tokenizer.bos_token_id)):
            loss = _step(model, optimiser, batch, rate_scale(step, settings))
            progress.update(task, advance=1, loss=loss)
            if not console.is_terminal and step % 100 == 99:
                console.print(f"step {step + 1} of {settings.steps}: loss {loss:.3f}")
    return model.eval(), tokenizer


def _sample(seed: int) -> Iterator[str]:
    """Documents to learn the tokenizer from."""
    for domain in DOMAINS:
        for _, text in zip(range(TOKENIZER_DOCUMENTS[domain]), training_documents(domain, seed)):
            yield text


def _step(
    model: MixtralForCausalLM, optimiser: Optimiser, batch: tuple[torch.Tensor, torch.Tensor], scale: float
) -> float:
    """One update from ids and positions. Returns the language loss alone, in nats a token."""
    ids, positions = batch
    output = model(input_ids=ids, position_ids=positions, output_router_logits=True, use_cache=False)
    loss = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    total = loss + model.config.router_aux_loss_coef * balance_loss(output.router_logits, model.config)
    total.backward()
    optimiser.step(scale)
    return float(loss.item())


def save(model: MixtralForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write bfloat16 weights, configuration and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # safetensors writes for the owner alone; an installed package is read by others too.
    (folder / "model.safetensors").chmod(0o644)


def report(folder: Path, tokenizer: PreTrainedTokenizerBase, settings: Settings, took: tuple[float, float]) -> Figures:
    """Measure what was saved (so after rounding to bfloat16) and write `figures.json` and the model card.

    `took` is the training's wall time and processor time, in seconds.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    measured = measure(model, tokenizer)
    figures = Figures(
        seed=settings.seed,
        steps=settings.steps,
        trained_tokens=settings.steps * TOKENS_PER_STEP,
        threads=settings.threads,
        seconds=round(took[0], 1),
        cpu_seconds=round(took[1], 1),
        parameters=sum(weight.numel() for weight in model.parameters()),
        versions={"torch": torch.__version__, "transformers": transformers.__version__},
        loss={name: round(loss, 4) for name, loss in measured.loss_by_domain().items()},
        held_out_tokens=measured.tokens_by_domain(),
        layers=measured.layers(),
    )
    figures.save(folder)
    write_card(folder, figures, {prompt: _continued(model, tokenizer, prompt) for prompt in PROMPTS.values()})
    return figures


def _continued(model: MixtralForCausalLM, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The prompt and up to 64 greedy tokens."""
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    return str(tokenizer.decode(output[0], skip_special_tokens=True))


class _Parser(argparse.ArgumentParser):
    """argparse's, that raises what is wrong with a call."""

    def error(self, message: str) -> NoReturn:
        """Raise ``UsageError``."""
        raise UsageError(message, f"see '{self.prog} --help'")


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value < 2**63:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, not {value}")
        return value

    number.__name__ = "whole number"  # what argparse calls it
    return number


def _make_folder(folder: Path) -> None:
    """Make the folder for the model, before minutes of training; raises ``UsageError`` if no file can be made there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {_reason(error)}", "--output names another folder") from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status, as ``moetui`` has it."""
    try:
        _train_as_asked(arguments)
    except MoetuiError as error:
        sys.stderr.write(f"error: {drawable(error.message)}\nhint: {drawable(error.hint)}\n")
        return error.exit_status
    except OSError as error:
        sys.stderr.write(f"error: {drawable(str(error.filename or 'the model'))}: {_reason(error)}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _train_as_asked(arguments: list[str] | None) -> None:
    parser = _Parser(prog="python -m moetui.demo.train", description="Train the embedded demo model.")
    defaults = Settings()
    parser.add_argument("--output", type=Path, default=model_path(), help="folder to write (default: the package's)")
    parser.add_argument("--seed", type=_at_least(0), default=defaults.seed)
    parser.add_argument("--steps", type=_at_least(1), default=defaults.steps)
    parser.add_argument("--threads", type=_at_least(1), default=defaults.threads)
    options = parser.parse_args(arguments)
    settings = Settings(seed=options.seed, steps=options.steps, threads=options.threads)
    _make_folder(options.output)
    console = Console(stderr=True)
    wall, processor = time.perf_counter(), time.process_time()
    model, tokenizer = train(settings, console)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - processor
    save(model, tokenizer, options.output)
    figures = report(options.output, tokenizer, settings, (seconds, cpu_seconds))
    mean = sum(figures.loss.values()) / len(figures.loss)
    console.print(f"{options.output}: held-out loss {mean:.3f} nats a token, {seconds:.0f} s")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
