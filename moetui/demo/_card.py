"""The model card, written from the figures."""

from pathlib import Path

from moetui.demo._figures import SHUFFLES, Figures, LayerFigures

_HEAD = """\
---
license: mit
library_name: transformers
pipeline_tag: text-generation
language: [en, fr]
---

# The moetui demo model

A small trained Mixtral that ships inside moetui: 6 layers of 8 experts, two a token, hidden size 128, context 512.
It is there so that a newcomer sees experts that mean something without downloading anything. It knows eight kinds of
text and nothing else: it is no assistant, and what it says is made up.

The corpus is written by the grammars in `moetui/demo/corpus/`; nothing in it is copied from anywhere. Weights,
tokenizer and corpus are under the MIT licence of moetui.

This file and `figures.json` are written by `python -m moetui.demo.train`, which makes the model from a seed. The same
seed, steps and threads give the same weights on the same processor type with the same versions of torch, transformers
and tokenizers.
"""


def _training(figures: Figures) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in figures.versions.items())
    return [
        "## Training",
        "",
        f"- {figures.parameters:,} parameters, stored as bfloat16",
        f"- seed {figures.seed}, {figures.steps} steps, {figures.trained_tokens:,} tokens",
        f"- {figures.seconds:.0f} s with {figures.threads} threads ({figures.cpu_seconds:.0f} s of processor time, all"
        f" threads together); {versions}",
        "- Muon for attention and experts, AdamW for the rest; load-balancing loss on every layer by itself",
        "",
    ]


def _losses(figures: Figures) -> list[str]:
    rows = [f"| {name} | {loss:.4f} | {figures.held_out_tokens[name]} |" for name, loss in figures.loss.items()]
    return [
        "## Held-out loss",
        "",
        "Nats a token on documents that training never saw, with the stored weights computed in float32.",
        "",
        "| domain | loss | tokens |",
        "|---|---|---|",
        *rows,
        "",
    ]


def _layers(figures: Figures) -> list[str]:
    rows = [
        f"| {number} | {layer.mutual_information:.3f} | {layer.shuffled_maximum:.3f} | {layer.fairness:.3f} |"
        f" {', '.join(map(str, layer.dead)) or 'none'} |"
        for number, layer in enumerate(figures.layers)
    ]
    return [
        "## Specialisation and balance",
        "",
        "Mutual information, in nats, between a token's domain and its first-choice expert; the control is the",
        f"largest of {SHUFFLES} permutations of the documents' domains. Fairness is Jain's index of the expert loads.",
        "",
        "| layer | mutual information | control | fairness | dead experts |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]


def _shares(number: int, layer: LayerFigures) -> list[str]:
    experts = range(len(next(iter(layer.shares.values()))))
    rows = [f"| {name} | {' | '.join(f'{share:.0%}' for share in row)} |" for name, row in layer.shares.items()]
    return [
        f"Layer {number}, first choices:",
        "",
        f"| domain | {' | '.join(map(str, experts))} |",
        f"|---|{'---|' * len(experts)}",
        *rows,
        "",
    ]


def _samples(samples: dict[str, str]) -> list[str]:
    lines = ["## Samples", "", "Greedy, at most 64 tokens after the prompt.", ""]
    for prompt, text in samples.items():
        title = prompt.splitlines()[0]
        lines += [f"`{title}`", "", "```text", *text.splitlines(), "```", ""]
    return lines


def write_card(folder: Path, figures: Figures, samples: dict[str, str]) -> None:
    """Write `README.md` into a folder. `samples` maps prompts to whole texts."""
    lines = [_HEAD, *_training(figures), *_losses(figures), *_layers(figures)]
    for number, layer in enumerate(figures.layers):
        lines += _shares(number, layer)
    lines += _samples(samples)
    (folder / "README.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
