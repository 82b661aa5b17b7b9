"""Folders written by `save_pretrained`, recorded as a user would, against an interception that knows no hook."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moetui import open_trace
from moetui.engine.loading import load
from moetui.engine.models import LoadRequest
from moetui.engine.sites import find_sites
from moetui.engine.zoo import build, buildable, save
from moetui.routing import NO_EXPERT, Site
from moetui.routing.events import GenerationSettings
from moetui.session import LiveOptions
from moetui.session.headless import run_headless
from moetui.trace.exporters import export
from tests.engine.interception import intercepted

PROMPT = "a few words of a prompt"
# Weights mapped from a file lie where they lie, and some kernels round by the address: far below any real difference.
TOLERANCE = {"rtol": 5e-3, "atol": 2e-3}


def truth(folder: Path, ids: np.ndarray[Any, Any]) -> dict[str, tuple[Site, Any]]:
    """By module path: the site, and the ``[T, classes]`` weights that ran in one pass over the prompt."""
    model = load(LoadRequest(str(folder), device="cpu")).model
    tokens = torch.from_numpy(ids.astype(np.int64))[None]
    handles = find_sites(model)
    modules = [module for handle in handles for module in (handle.experts, handle.router)]
    with torch.no_grad(), intercepted(modules) as found:
        if model.can_generate() and not model.config.is_encoder_decoder:
            model.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=1, do_sample=False)
        else:
            model(input_ids=tokens, attention_mask=torch.ones_like(tokens), **decoder_start(model))
    ran = [handle for handle in handles if id(handle.experts) in found.calls or id(handle.router) in found.outputs]
    return {
        handle.site.path: (handle.site, found.dense(handle).float().numpy())
        for handle in ran
        if handle.site.kind != "product_key"
    }


def decoder_start(model: Any) -> dict[str, torch.Tensor]:
    if not model.config.is_encoder_decoder:
        return {}
    return {"decoder_input_ids": torch.tensor([[model.generation_config.decoder_start_token_id]])}


# diffusion_gemma denoises a canvas that it draws at random at each pass: no two passes route alike.
@pytest.mark.parametrize("name", [name for name in buildable() if name != "diffusion_gemma"])
def test_a_recorded_folder_is_what_an_independent_capture_sees(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    save(build(name), folder)
    out = tmp_path / "trace.msgpack"
    settings = GenerationSettings(max_new_tokens=1)
    run = run_headless(
        LiveOptions(LoadRequest(str(folder), device="cpu"), prompt=PROMPT, settings=settings, record=out)
    )
    assert not run.problem
    with open_trace(out) as trace:
        view = trace.timeline
        assert trace.complete
        assert trace.info.name == name
        assert str(tmp_path) not in repr(trace.info)
        tokens, block = view.tokens(0, view.end), view.routing(0, view.end)
        prompt_stack = view.stacks.index("encoder") if "encoder" in view.stacks else tokens.stack[0]
        wanted = truth(folder, tokens.token_id[(tokens.stack == prompt_stack) & (tokens.phase == 0)])
        assert wanted or name == "doge"
        compared = 0
        for site in trace.info.sites:
            if site.path not in wanted:
                continue
            rows = np.flatnonzero(tokens.stack == stack_of(view, site))
            assert block.weights is not None
            found = dense(block.indices[rows, site.index], block.weights[rows, site.index], site.num_classes)
            np.testing.assert_allclose(found, wanted[site.path][1], err_msg=site.name, **TOLERANCE)
            compared += 1
        assert compared == len(wanted)
        check_export(trace, block, tokens)


def stack_of(view: Any, site: Site) -> int:
    return int(view.stacks.index(site.stack)) if site.stack in view.stacks else -1


def dense(indices: Any, weights: Any, classes: int) -> Any:
    out = np.zeros((len(indices), classes + 1), np.float32)
    clean = np.where(indices == NO_EXPERT, classes, indices)
    for slot in range(indices.shape[1]):
        np.add.at(out, (np.arange(len(indices)), clean[:, slot]), np.nan_to_num(weights[:, slot].astype(np.float32)))
    return out[:, :classes]


def check_export(trace: Any, block: Any, tokens: Any) -> None:
    """The router log has every token that went through the model, with the experts that ran."""
    stream = io.BytesIO()
    export(trace, "json", stream)
    log = json.loads(stream.getvalue())
    assert sum(sample["num_tokens"] for sample in log["samples"]) == int((~tokens.pad).sum())
    first = log["samples"][0]["layers"][0]
    assert len(first["selected_experts"]) == log["samples"][0]["num_tokens"]
