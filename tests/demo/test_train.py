"""The training script end to end, at a size that takes a second or two."""

import filecmp

import pytest
import torch

from moetui.demo import DOMAINS
from moetui.demo._figures import load_figures
from moetui.demo.train import CONTEXT, TOKENS_PER_STEP, Settings, batches, main, rate_scale, token_stream


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    for folder in folders:
        assert main(["--output", str(folder), "--seed", "5", "--steps", "3", "--threads", "1"]) == 0
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    return folders


def test_the_same_seed_gives_the_same_files(trained):
    names = ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
    assert filecmp.cmpfiles(*trained, names, shallow=False) == (names, [], [])


def test_the_figures_describe_the_run(trained):
    figures = load_figures(trained[0])
    assert (figures.seed, figures.steps, figures.trained_tokens) == (5, 3, 3 * TOKENS_PER_STEP)
    assert tuple(figures.loss) == DOMAINS
    assert (trained[0] / "README.md").is_file()


def test_the_stream_mixes_whole_documents_of_every_domain(tokenizer):
    stream = token_stream(tokenizer, 20_000, seed=2)
    assert len(stream) == 20_000
    assert stream[0] == tokenizer.bos_token_id
    # Every begin but the first follows an end, and nothing else does.
    begins = (stream == tokenizer.bos_token_id).nonzero().flatten()[1:]
    ends = (stream[:-1] == tokenizer.eos_token_id).nonzero().flatten()
    assert torch.equal(begins, ends + 1)
    early = tokenizer.decode(stream[:6000])
    assert all(sign in early for sign in ("Once", "Il ", "Recipe", " = ", "def ", '": ', "INFO", "</"))


def test_some_sequences_are_as_long_as_the_context():
    shapes = {tuple(batch.shape) for batch in batches(torch.zeros(4 * TOKENS_PER_STEP, dtype=torch.long))}
    assert shapes == {(TOKENS_PER_STEP // CONTEXT, CONTEXT), (2 * TOKENS_PER_STEP // CONTEXT, CONTEXT // 2)}


def test_the_rate_rises_then_falls():
    settings = Settings(steps=100, warmup=10)
    rates = [rate_scale(step, settings) for step in range(100)]
    assert max(rates) == rates[9] == 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.05 <= rates[-1] < 0.06
