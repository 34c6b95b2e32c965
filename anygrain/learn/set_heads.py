"""Which head learns from labels of sets: a linear one, or a small network, and how much of it decays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from anygrain.labels import All, Labels, SetLabels
from anygrain.learn.calibration import told
from anygrain.learn.graph import Graph
from anygrain.learn.recipe import Recipe, RecipeResult, Settings

#: weight decay of the network in units of that of an observation that speaks of one instance
DECAYS = (1.0, 10.0, 100.0)
MOST = 2000  # sets up to which the network is tried: of more, a fit takes its time, and a linear head has learnt enough
NETWORK = "small-mlp"


def wants_choice(labels: Labels) -> bool:
    """Whether sets, few of them, say what is known, and likelihoods of the held-out ones can be compared."""
    parts = labels.parts if isinstance(labels, All) else [labels]
    sets = sum(len(part.sets) for part in parts if isinstance(part, SetLabels))
    return 0 < sets <= MOST and told(labels) is labels


def chosen_recipe(
    linear: Recipe, found: RecipeResult, make: Callable[[str, Settings, Graph | None], Recipe]
) -> tuple[Recipe, RecipeResult]:
    r"""The recipe whose head makes held-out evidence likeliest, and what it found.

    A set is one observation however many instances it has, so the decay of a network is taken per set:

    .. math:: \lambda = c \, \lambda_0 \frac{M}{N}, \qquad c \in \{1, 10, 100\}

    Args:
        linear: that of the linear head.
        found: by it.
        make: gives a recipe of a head, with settings and the graph of the rows.
    """
    labels, settings = linear.labels, linear.settings
    graph = linear.graph if settings.neighbours else None
    best, scores = linear, {"linear": _score(found)}
    for decay in DECAYS:
        penalty = decay * settings.penalty * labels.n_observations / max(labels.n_instances, 1)
        recipe = make(NETWORK, replace(settings, penalty=penalty), graph)
        tried = recipe.run()
        scores[f"{NETWORK}, decay {penalty:.2g}"] = _score(tried)
        if _score(tried) > _score(found):
            best, found = recipe, tried
    return best, replace(found, chosen={**found.chosen, "heads": scores})


def _score(found: RecipeResult) -> float:
    """Log-likelihood of held-out evidence per instance."""
    return float(found.history[-1]["held_out_evidence"])
