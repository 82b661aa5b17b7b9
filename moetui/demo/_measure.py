"""Runs a model over the held-out documents: loss a document, and which experts its tokens went to."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from moetui.demo import DOMAINS
from moetui.demo._figures import Counts, LayerFigures, domain_counts, layer_figures
from moetui.demo.corpus import held_out


@dataclass(frozen=True, slots=True)
class Measurement:
    """Sums over the held-out documents, in the order of `DOMAINS`.

    `losses` is float64 `[documents]`, nats summed over `tokens` `[documents]` predictions; `first` counts first choices
    `[documents, layers, experts]`, `loads` every choice `[layers, experts]`; `domains` numbers each document's domain.
    """

    losses: NDArray[np.float64]
    tokens: Counts
    first: Counts
    loads: Counts
    domains: Counts

    def loss_by_domain(self) -> dict[str, float]:
        """Nats a token for each domain."""
        sums = np.bincount(self.domains, self.losses)
        return {name: float(loss) for name, loss in zip(DOMAINS, sums / self._tokens(), strict=True)}

    def tokens_by_domain(self) -> dict[str, int]:
        """Predicted tokens for each domain."""
        return {name: int(number) for name, number in zip(DOMAINS, self._tokens(), strict=True)}

    def _tokens(self) -> Counts:
        return domain_counts(self.tokens, self.domains, len(DOMAINS))

    def layers(self) -> list[LayerFigures]:
        """The figures of every layer."""
        return [
            layer_figures(self.first[:, layer], self.loads[layer], self.domains, DOMAINS)
            for layer in range(self.first.shape[1])
        ]


def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: int = 16) -> Measurement:
    """Measure a Mixtral on all held-out documents. Every document is a sequence of its own: begin, text, end."""
    texts = [(number, text) for number, domain in enumerate(DOMAINS) for text in held_out(domain)]
    encoded = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for _, text in texts]
    experts, layers = model.config.num_local_experts, model.config.num_hidden_layers
    losses = np.zeros(len(texts))
    first = np.zeros((len(texts), layers, experts), dtype=np.int64)
    loads = np.zeros((layers, experts), dtype=np.int64)
    by_length = sorted(range(len(texts)), key=lambda number: len(encoded[number]))
    for start in range(0, len(by_length), batch):
        chosen = by_length[start : start + batch]
        rows = [torch.tensor(encoded[number]) for number in chosen]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
        mask = ids != tokenizer.pad_token_id
        with torch.inference_mode():
            output = model(input_ids=ids, attention_mask=mask.long(), output_router_logits=True, use_cache=False)
        nats = torch.nn.functional.cross_entropy(output.logits[:, :-1].float().mT, ids[:, 1:], reduction="none")
        losses[chosen] = (nats * mask[:, 1:]).sum(1).double().numpy()
        for layer, logits in enumerate(output.router_logits):
            ranked = logits.float().topk(model.config.num_experts_per_tok).indices.reshape(*ids.shape, -1)
            loads[layer] += torch.bincount(ranked[mask].flatten(), minlength=experts).numpy()
            hot = torch.nn.functional.one_hot(ranked[..., 0], experts) * mask[..., None]
            first[chosen, layer] = hot.sum(1).numpy()
    tokens = np.array([len(ids) - 1 for ids in encoded], dtype=np.int64)
    return Measurement(losses, tokens, first, loads, np.array([domain for domain, _ in texts], dtype=np.int64))
