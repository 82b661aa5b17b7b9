"""Probabilities of tokens, worked out by the recorder while the run is still going on or over already."""

from __future__ import annotations

import gc

import numpy as np
import torch

from moetui.engine.capture import Capture
from moetui.routing import Step
from tests.engine.conftest import ZooModel


def test_every_generated_token_has_its_probability_though_the_run_ends_first(zoo_model: ZooModel) -> None:
    model = zoo_model("mixtral").model
    steps: list[Step] = []
    ids = torch.randint(4, 500, (2, 5), generator=torch.Generator().manual_seed(1))
    with Capture(model, on_step=steps.append) as capture:
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=40,
            min_new_tokens=40,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        logits = torch.stack(out.logits, 1)  # [2, 40, V]
        sequences = out.sequences
        del out
        gc.collect()  # the cache is gone; the last steps still wait for the recorder
        capture.flush()
    found = np.stack([step.logprob for step in steps if step.num_tokens == 2], 1)
    wanted = logits.log_softmax(-1).gather(-1, sequences[:, 5:, None]).squeeze(-1)[:, :-1]
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-3)
