"""The orthogonalised update against what a singular value decomposition says."""

import pytest
import torch

from moetui.demo._muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(16, 16), (12, 30), (30, 12), (3, 30, 12)])
def test_singular_vectors_stay_and_singular_values_become_about_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    result = orthogonalised(matrices)
    inside = u.mT @ result @ vh.mT
    values = torch.diagonal(inside, dim1=-2, dim2=-1)
    assert values.max() < 1.3
    # The smallest value of a random square matrix can be so near 0 that five iterations do not lift it all the way.
    assert values.quantile(0.2) > 0.6
    assert (inside - torch.diag_embed(values)).abs().max() < 1e-9


def test_stacked_matrices_do_not_mix():
    stacked = torch.randn(4, 6, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    each = torch.stack([orthogonalised(matrix) for matrix in stacked])
    assert torch.allclose(orthogonalised(stacked), each, atol=1e-12)


def test_steps_lead_to_the_least_square():
    generator = torch.Generator().manual_seed(3)
    wanted = torch.randn(6, 4, generator=generator)
    weight = torch.nn.Parameter(torch.zeros(6, 4))
    optimiser = Muon([weight], decay=0.0)
    for step in range(300):
        weight.grad = weight.detach() - wanted
        optimiser.step(0.1 * (1 - step / 300))
    assert (weight - wanted).norm() < 0.05 * wanted.norm()
