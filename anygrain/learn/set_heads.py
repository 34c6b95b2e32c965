"""The head that learns from labels of few sets: small networks of several weight decays, averaged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from anygrain.labels import All, Labels, SetLabels
from anygrain.labels.target_sets import TargetSets
from anygrain.learn.calibration import fit_temperature
from anygrain.learn.graph import Graph
from anygrain.learn.head import Committee, make_head
from anygrain.learn.recipe import Callback, Recipe, RecipeResult, RecipeState

#: weight decay in units of that of an observation that speaks of one instance
DECAYS = (3.0, 10.0, 30.0)
MOST = 2000  # sets up to which the network is tried: of more, a fit takes its time, and a linear head has learnt enough

STEPS = 30  # of EM

#: makes a recipe of a head: its name, decay, finished steps, what is called after each, and further arguments
Make = Callable[..., Recipe]


def wants_network(labels: Labels) -> bool:
    """Whether sets, few of them, say all that is known, some of them of a target class, with an exact likelihood."""
    parts = labels.parts if isinstance(labels, All) else [labels]
    sets = sum(len(part.sets) for part in parts if isinstance(part, SetLabels))
    of_target = any(isinstance(part, TargetSets) for part in parts)
    return of_target and all(isinstance(part, SetLabels) for part in parts) and sets <= MOST and labels.exact


def likeliest_constant(labels: Labels) -> Tensor:
    r"""The log-probabilities (K,), the same for every instance, that make the evidence likeliest, by EM.

    A class that every other bag of n members holds at least once is as frequent as 0.7 / n. From equal probabilities a
    large bag that holds it would seem to say nothing of its members.
    """
    found = torch.full((labels.n_classes,), -math.log(labels.n_classes), device=labels.device)
    for _ in range(STEPS):
        posterior = labels.posterior(found.expand(labels.n_instances, -1))
        found = posterior.mean(dim=0).clamp(min=1e-6).log().log_softmax(dim=0)
    return found


def fit_network(
    make: Make, labels: Labels, penalty: float, state: RecipeState | None, callback: Callback | None
) -> tuple[Recipe, RecipeResult, RecipeState]:
    r"""A recipe for every decay, what they found together, and finished steps.

    A set is one observation however many instances it has, so the decay is taken per set. Held-out sets, few as they
    are, do not tell which decay is right, so the networks are averaged, and make a `Committee` of C:

    .. math:: \lambda_c = c \, \lambda_0 \frac{M}{N}, \quad c \in \{3, 10, 30\}, \qquad
              z = \frac{t}{C} \sum_c t_c z_c

    with t the temperatures of each and of all.

    Args:
        labels: M observations of N instances.
        penalty: lambda_0.
        state: finished steps of an interrupted fit.
        callback: called after every step.
    """
    whole = RecipeState() if state is None else state
    graph: Graph | None = None
    found: list[RecipeResult] = []
    before = likeliest_constant(labels)
    decays = [decay * penalty * labels.n_observations / max(labels.n_instances, 1) for decay in DECAYS]
    for number, each in enumerate(decays):
        name = f"decay {DECAYS[number]:g}"
        own = RecipeState(
            {step.removeprefix(f"{name} "): kept for step, kept in whole.steps.items() if step.startswith(f"{name} ")},
            [facts for facts in whole.history if facts.get("decay") == DECAYS[number]],
        )

        def keep(
            done: int, total: int, facts: dict[str, Any], own: RecipeState = own, name: str = name, number: int = number
        ) -> None:
            facts["decay"] = DECAYS[number]
            whole.steps.update({f"{name} {step}": kept for step, kept in own.steps.items()})
            whole.history.append({**facts, "step": f"{name} {facts['step']}"})
            if callback is not None:
                callback(number * total + done, len(DECAYS) * total, whole.history[-1])

        recipe = make("small-mlp", each, own, keep, graph=graph, before=before)
        found.append(recipe.run())
        graph = recipe.graph if recipe.settings.neighbours else None
    return recipe, _joined(recipe, found, whole), whole


def _joined(recipe: Recipe, found: list[RecipeResult], whole: RecipeState) -> RecipeResult:
    """What several recipes found, together."""
    held = torch.stack([one.held_out_log_probs for one in found]).mean(dim=0)
    temperature = fit_temperature(recipe.evidence.view, held, torch.ones_like(recipe.anchors), default=1.0)
    log_probs = (temperature * held).log_softmax(dim=1)
    head = make_head("committee", recipe.features.shape[1], recipe.k).to(recipe.features.device)
    assert isinstance(head, Committee)
    members: list[Any] = [one.head for one in found]
    return replace(
        found[0],
        head=head.joined(members, [temperature * one.temperature / len(found) for one in found]),
        temperature=1.0,
        posterior=recipe.evidence.posterior(log_probs),
        held_out_log_probs=log_probs,
        history=list(whole.history),
    )
