"""The seed systems: the methods this project sets out to hold, each with the claim that proves it and its state."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Literal

State = Literal["planned", "shown", "not shown"]

STATES: tuple[State, ...] = ("planned", "shown", "not shown")

ROOMS = (
    "labels",
    "metrics",
    "data",
    "encoders",
    "learn",
    "represent",
    "robust",
    "bags",
    "discover",
    "predict",
    "audit",
    "select",
    "distill",
    "adapt",
    "retrieve",
    "dense",
    "text",
    "measure",
    "report",
)


@dataclass(frozen=True, slots=True)
class System:
    """One method of the literature, where it lives here, and what must come out for it to count as working.

    Args:
        id: ``"S001"`` .. ``"S150"``.
        name: what the field calls it.
        room: the sub-package of ``anygrain`` it belongs to, one of ``ROOMS``.
        claim: what must come out, against which baseline, on which data.
        paper: title and first year of the source.
        state: ``planned`` until the script ``benchmarks/claims/sNNN_*.py`` has run, then ``shown`` or ``not shown``,
            as its row in ``benchmarks/claims/RESULTS.md`` says.
    """

    id: str
    name: str
    room: str
    claim: str
    paper: str
    state: State

    def matches(self, text: str) -> bool:
        """True where every word of ``text`` occurs in some field, upper and lower case alike."""
        everything = " ".join((self.id, self.name, self.room, self.claim, self.paper, self.state)).casefold()
        return all(word in everything for word in text.casefold().split())


@cache
def all_systems() -> tuple[System, ...]:
    """Every seed system, by id. The file is read on the first call."""
    rows = json.loads(files("anygrain").joinpath("systems.json").read_text(encoding="utf-8"))
    return tuple(System(**row) for row in rows)


def find(text: str) -> tuple[System, ...]:
    """The systems whose fields hold every word of ``text``: an id, or words of name, room, claim, paper, state."""
    return tuple(system for system in all_systems() if system.matches(text))


def render(systems: Iterable[System], room: str | None = None, text: str | None = None) -> list[dict[str, str]]:
    """Rows for a table: id, name, room, state, claim, of the systems in ``room`` that ``text`` matches.

    Args:
        systems: what to choose from, e.g. ``all_systems()``.
        room: keep this room only; None keeps all.
        text: keep what these words match, as in :func:`find`; None keeps all.

    Raises:
        ValueError: a room that does not exist, naming the nearest one.
    """
    if room is not None and room not in ROOMS:
        near = get_close_matches(room, ROOMS, n=1)
        hint = f'Did you mean "{near[0]}"? ' if near else ""
        raise ValueError(f'There is no room "{room}". {hint}Rooms: {", ".join(ROOMS)}')
    return [
        {"id": s.id, "name": s.name, "room": s.room, "state": s.state, "claim": s.claim}
        for s in systems
        if (room is None or s.room == room) and (text is None or s.matches(text))
    ]
