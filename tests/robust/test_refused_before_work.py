"""A procedure refuses labels and settings before the recipe runs."""

import pytest
import torch

from anygrain.bags import INS
from anygrain.labels import Exact, LabelError, Labels, Noisy
from anygrain.learn import Learner, Procedure
from anygrain.robust import FewShotPrototypes, Storm, SubclassContrast, SubPseudoLabels

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).numpy()
FIRST = Exact(torch.tensor([0, 1] * 10 + [-1] * 20), 3)
WEAK = Noisy(torch.tensor([-1] * 20 + [0, 1, 2, 0] * 5), 3)


@pytest.mark.parametrize(
    ("procedure", "labels", "said"),
    [
        (SubPseudoLabels(), FIRST, "others with weak ones"),
        (FewShotPrototypes(), FIRST & WEAK, "class 2 has no trusted row"),
        (INS(), Exact(torch.tensor([0, 1, 2, 0] * 10), 3), "nothing open"),
    ],
)
def test_labels(procedure: Procedure, labels: Labels, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr("anygrain.learn.learner.fit_fixed", work)
    with pytest.raises(LabelError, match=said) as error:
        Learner(head="mlp", procedure=procedure).fit(X, labels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("procedure", [SubPseudoLabels(), SubclassContrast(), INS()])
def test_a_head_without_hidden_layer(procedure: Procedure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anygrain.learn.learner.fit_fixed", None)
    with pytest.raises(LabelError, match="trains a hidden layer"):
        Learner(procedure=procedure).fit(X, FIRST & WEAK)


def test_a_batch_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anygrain.learn.learner.fit_fixed", None)
    with pytest.raises(LabelError, match="batch_size is 1"):
        Learner(procedure=Storm(), batch_size=1).fit(X, FIRST & WEAK)
