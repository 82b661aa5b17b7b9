"""The figures' arithmetic against values worked out by hand."""

import math

import numpy as np
import pytest

from moetui.demo._figures import (
    Figures,
    domain_counts,
    fairness,
    layer_figures,
    load_figures,
    mutual_information,
    shuffled_maximum,
)


def test_mutual_information_of_a_bijection_is_the_log_of_its_size():
    assert mutual_information(np.diag([5, 80, 3, 1])) == pytest.approx(math.log(4))


def test_mutual_information_of_equal_rows_is_zero():
    assert mutual_information(np.array([[10, 30, 0], [1, 3, 0]])) == pytest.approx(0, abs=1e-12)


def test_mutual_information_by_hand():
    # p(expert 0 | domain 0) = 3/4, p(expert 0 | domain 1) = 1/4: ln 2 less the entropy of (3/4, 1/4).
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert mutual_information(np.array([[3, 1], [100, 300]])) == pytest.approx(math.log(2) - entropy)


def test_permuting_documents_destroys_what_the_domains_tell():
    domains = np.repeat(np.arange(4), 12)
    counts = np.eye(4, dtype=np.int64)[domains] * 20
    assert mutual_information(domain_counts(counts, domains, 4)) == pytest.approx(math.log(4))
    assert shuffled_maximum(counts, domains, 4) < 0.5 * math.log(4)


def test_fairness_ends():
    assert fairness(np.array([7, 7, 7, 7])) == pytest.approx(1)
    assert fairness(np.array([9, 0, 0, 0])) == pytest.approx(0.25)


def test_a_dead_expert_is_named():
    first = np.array([[4, 0, 1], [3, 0, 2]])
    figures = layer_figures(first, np.array([9, 0, 11]), np.array([0, 1]), ("a", "b"))
    assert figures.dead == [1]
    assert figures.shares == {"a": [0.8, 0.0, 0.2], "b": [0.6, 0.0, 0.4]}


def test_figures_survive_the_file(tmp_path):
    layer = layer_figures(np.array([[4, 1], [3, 2]]), np.array([9, 11]), np.array([0, 1]), ("a", "b"))
    figures = Figures(1, 2, 3, 2, 4.5, 8.5, 6, {"torch": "2"}, {"a": 1.0, "b": 2.0}, {"a": 5, "b": 6}, [layer])
    figures.save(tmp_path)
    assert load_figures(tmp_path) == figures
