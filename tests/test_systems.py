"""The seed systems are complete, say something definite, and claim no more than a results table holds."""

import re
from pathlib import Path

import pytest

from anygrain.systems import ROOMS, STATES, System, all_systems, find, render

ROOT = Path(__file__).resolve().parents[1]
CLAIMS = ROOT / "benchmarks" / "claims"
ROOM_SIZES = {
    "bags": 7,
    "robust": 11,
    "audit": 3,
    "discover": 8,
    "predict": 13,
    "represent": 11,
    "encoders": 12,
    "select": 10,
    "distill": 12,
    "adapt": 16,
    "retrieve": 16,
    "dense": 16,
    "text": 8,
    "measure": 7,
}


def unbacked(systems: tuple[System, ...], claims: Path) -> list[str]:
    """Ids whose state says that a claim script has run although the script or its row of results is missing."""
    results = claims / "RESULTS.md"
    rows = results.read_text(encoding="utf-8") if results.exists() else ""
    shown = set(re.findall(r"^\|[^|]*\b(S\d{3})\b", rows, flags=re.MULTILINE))
    return [
        s.id
        for s in systems
        if s.state != "planned" and not (s.id in shown and any(claims.glob(f"{s.id.lower()}_*.py")))
    ]


def test_the_150_ids_run_from_S001_to_S150_in_order():
    assert [s.id for s in all_systems()] == [f"S{n:03d}" for n in range(1, 151)]


def test_each_room_of_the_design_holds_its_systems():
    rooms = [s.room for s in all_systems()]
    assert set(rooms) <= set(ROOMS)
    assert {room: rooms.count(room) for room in set(rooms)} == ROOM_SIZES


def test_claims_are_distinct_and_short_enough_to_print():
    claims = [s.claim for s in all_systems()]
    assert len(set(claims)) == len(claims)
    for system in all_systems():
        assert 40 <= len(system.claim) <= 400, system.id
        assert system.claim[0].isupper(), system.id
        assert system.claim.endswith("."), system.id


def test_names_and_papers_are_given_and_papers_carry_their_year():
    names = [s.name for s in all_systems()]
    assert all(names)
    assert len(set(names)) == len(names)
    for system in all_systems():
        assert re.fullmatch(r"\S.* \((19|20)\d\d\)", system.paper), system.id


def test_a_state_other_than_planned_is_backed_by_a_script_and_a_row_of_results():
    assert {s.state for s in all_systems()} <= set(STATES)
    assert unbacked(all_systems(), CLAIMS) == []


def test_an_unbacked_state_is_found_out(tmp_path):
    shown = System("S001", "name", "bags", "claim", "paper", "shown")
    assert unbacked((shown,), tmp_path) == ["S001"]
    (tmp_path / "s001_name.py").touch()
    assert unbacked((shown,), tmp_path) == ["S001"]
    (tmp_path / "RESULTS.md").write_text("S001 is mentioned, but has no row.\n")
    assert unbacked((shown,), tmp_path) == ["S001"]
    (tmp_path / "RESULTS.md").write_text("| S001 | name | shown |\n")
    assert unbacked((shown,), tmp_path) == []


def test_systems_cannot_be_changed_and_are_read_once():
    assert all_systems() is all_systems()
    with pytest.raises(AttributeError):
        all_systems()[0].state = "shown"


def test_find_takes_ids_and_words_in_any_case():
    assert [s.id for s in find("s012")] == ["S012"]
    assert [s.id for s in find("LOKI metric")] == ["S016"]
    assert set(find("dense")) >= {s for s in all_systems() if s.room == "dense"}
    assert find("no such words") == ()
    assert find("") == all_systems()


def test_render_filters_by_room_and_text():
    rows = render(all_systems(), room="audit")
    assert [row["id"] for row in rows] == ["S114", "S131", "S137"]
    assert set(rows[0]) == {"id", "name", "room", "state", "claim"}
    assert [row["id"] for row in render(all_systems(), room="audit", text="crowd")] == ["S131"]
    assert render(find("S001"), room="audit") == []
    assert render(all_systems(), room="labels") == []
    assert len(render(all_systems())) == 150


def test_render_names_the_room_that_was_probably_meant():
    with pytest.raises(ValueError, match=r'no room "discovr"\. Did you mean "discover"\?'):
        render(all_systems(), room="discovr")
