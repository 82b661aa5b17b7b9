import pytest

from moetui.demo import model_path


@pytest.fixture(scope="session")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_path(), local_files_only=True)


@pytest.fixture(scope="session")
def model():
    import torch
    from transformers import AutoModelForCausalLM

    # float32, as the figures were measured: the stored bfloat16 values are exact in it.
    return AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32, local_files_only=True)


@pytest.fixture(scope="session")
def measured(model, tokenizer):
    from moetui.demo._measure import measure

    return measure(model, tokenizer)
