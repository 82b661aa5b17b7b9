from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from moetui.cli import main
from moetui.routing import ModelInfo, Phase, Site, Step
from moetui.routing.events import Event
from moetui.trace import TraceWriter

Write = Callable[..., Path]


@dataclass(frozen=True)
class Called:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Called]:
    """Run the command line in this process, away from the user's own settings."""
    monkeypatch.setenv("MOETUI_CONFIG", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def run(*args: object) -> Called:
        with pytest.raises(SystemExit) as end:
            main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        code = end.value.code
        return Called(code if isinstance(code, int) else 0, out, err)

    return run


@pytest.fixture
def trace(tmp_path: Path) -> Write:
    """Write a small recording: 3 sites × 4 experts, top-2, one prefill and some decode steps."""

    def write(
        name: str = "a.msgpack",
        *,
        seed: int = 0,
        tokens: int = 40,
        collapsed: bool = False,
        uneven: int | None = None,
        events: Sequence[Event] = (),
        has_logits: bool = True,
    ) -> Path:
        sites = tuple(
            Site(i, f"L{i}", i, f"layers.{i}.experts", f"layers.{i}.gate", 4, 4, 2, scoring="softmax") for i in range(3)
        )
        info = ModelInfo("toy", "ToyForCausalLM", "toy", sites)
        rng = np.random.default_rng(seed)
        path = tmp_path / name
        writer = TraceWriter(path, info, prompt="a [b]prompt", has_logits=has_logits)
        for index in range(tokens):
            logits = rng.normal(size=(1, 3, 4))
            if collapsed:
                logits[..., 2:] -= 50
            if uneven is not None:
                logits[:, uneven, 2:] -= 1.8
            order = np.argsort(-logits, -1)[..., :2]
            chosen = np.exp(np.take_along_axis(logits, order, -1))
            writer.write_step(
                Step(
                    index=index,
                    phase=Phase.DECODE if index else Phase.PREFILL,
                    started=index * 0.01,
                    duration=9.0,
                    sequence=np.zeros(1, np.int16),
                    position=np.array([index], np.int32),
                    token_id=np.array([index % 7], np.int32),
                    pad=np.zeros(1, np.bool_),
                    logprob=np.full(1, -0.5, np.float32),
                    indices=order.astype(np.uint16),
                    weights=(chosen / chosen.sum(-1, keepdims=True)).astype(np.float16),
                    logits=logits.astype(np.float16),
                    flags=np.zeros((1, 3), np.uint8),
                    candidate_ids=np.full((1, 2), -1, np.int32),
                    candidate_logprobs=np.full((1, 2), np.nan, np.float16),
                    site_ms=np.array([1, 2, 3], np.float32),
                    vocabulary={i: f" w{i}" for i in range(7)} if not index else {},
                )
            )
        for event in events:
            writer.write_event(event)
        writer.close()
        assert not writer.problem
        return path

    return write
