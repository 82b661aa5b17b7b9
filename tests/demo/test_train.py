"""The training script end to end, at a size that takes a second or two."""

import filecmp

import pytest
import torch
from rich.console import Console

from moetui.demo import DOMAINS
from moetui.demo._figures import load_figures
from moetui.demo.train import CONTEXT, TOKENS_PER_STEP, Settings, batches, main, rate_scale, save, token_stream, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    assert main(["--output", str(folders[0]), "--seed", "5", "--steps", "3", "--threads", "1"]) == 0
    # The second without the report, which takes most of the time here.
    save(*train(Settings(seed=5, steps=3, threads=1), Console(quiet=True)), folders[1])
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


def test_positions_start_again_with_every_document_but_in_every_fourth_step():
    begin = 1
    stream = torch.full((4 * TOKENS_PER_STEP,), 9)
    stream[[100, 130]] = begin
    stream[3 * TOKENS_PER_STEP + 100] = begin
    steps = list(batches(stream, begin))
    assert all(ids.shape == positions.shape == (TOKENS_PER_STEP // CONTEXT, CONTEXT) for ids, positions in steps)
    first, last = steps[0][1], steps[3][1]
    expected = [*range(100), *range(30), *range(CONTEXT - 130)]
    assert first[0].tolist() == expected
    assert first[1].tolist() == last[0].tolist() == list(range(CONTEXT))


def test_a_document_cannot_see_the_one_before(model, tokenizer):
    begin = tokenizer.bos_token_id
    stream = torch.randint(3, 768, (TOKENS_PER_STEP,), generator=torch.Generator().manual_seed(1))
    stream[40] = begin
    changed = stream.clone()
    changed[:40] = changed[:40].flip(0)
    logits = []
    for tokens in (stream, changed):
        (ids, positions), *_ = batches(tokens, begin)
        with torch.inference_mode():
            logits.append(model(input_ids=ids, position_ids=positions, use_cache=False).logits[0])
    one, other = logits
    assert not torch.equal(one[:40], other[:40])
    assert torch.allclose(one[40:], other[40:], atol=1e-4)


def test_the_rate_rises_then_falls():
    settings = Settings(steps=100, warmup=10)
    rates = [rate_scale(step, settings) for step in range(100)]
    assert max(rates) == rates[9] == 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.05 <= rates[-1] < 0.06


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "-1"], "argument --steps: must be a whole number from 1 on, not -1"),
        (["--steps", "0"], "argument --steps: must be a whole number from 1 on, not 0"),
        (["--steps", "many"], "argument --steps: invalid whole number value: 'many'"),
        (["--threads", "0"], "argument --threads: must be a whole number from 1 on, not 0"),
        (["--seed", "-1"], "argument --seed: must be a whole number from 0 on, not -1"),
        (["--output", "/proc/x"], "cannot write /proc/x: no such file or directory"),
        (["--stpes", "3"], "unrecognized arguments: --stpes 3"),
    ],
)
def test_a_wrong_call_is_one_line_before_anything_is_trained(capsys, arguments, said):
    assert main(arguments) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"error: {said}"
    assert hint.startswith("hint: ")
