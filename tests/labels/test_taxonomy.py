"""Taxonomy: every constructor, membership and distance against walks by hand, the deepest node one can be sure of."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anygrain.labels.error import LabelError
from anygrain.labels.taxonomy import Taxonomy

PATHS = ["Animal/Cat/Siamese", "Animal/Cat/Persian", "Animal/Dog", "Vehicle/Car"]


@pytest.fixture
def pets() -> Taxonomy:
    return Taxonomy.from_paths(PATHS)


@pytest.fixture
def diamond() -> Taxonomy:
    """A class with two parents that share a root, and one that skips a level."""
    edges = [("x", "P"), ("x", "Q"), ("y", "Q"), ("z", "T"), ("P", "T"), ("Q", "T"), ("w", "U")]
    return Taxonomy.from_edges(edges)


# ---------------------------------------------------------------------- brute force


def ways_up(taxonomy: Taxonomy, name: str) -> list[tuple[float, list[str]]]:
    """Every way from a node to a root with its probability (equal parents)."""
    parents = taxonomy.parents(name)
    if not parents:
        return [(1.0, [name])]
    return [(p / len(parents), [name, *way]) for parent in parents for p, way in ways_up(taxonomy, parent)]


def membership_by_hand(taxonomy: Taxonomy, rows: tuple[str, ...], sources: tuple[str, ...], *, first: bool) -> Tensor:
    out = torch.zeros(len(rows), len(sources), dtype=torch.float64)
    for s, source in enumerate(sources):
        for p, way in ways_up(taxonomy, source):
            met = [name for name in way if name in rows]
            for name in met[:1] if first else met:
                out[rows.index(name), s] += p
    return out


def distance_by_hand(taxonomy: Taxonomy, a: str, b: str) -> int:
    best = np.inf
    for _, up in ways_up(taxonomy, a):
        for _, other in ways_up(taxonomy, b):
            common = [up.index(n) + other.index(n) for n in up if n in other]
            best = min(best, *common, len(up) + len(other))
    return int(best)


@st.composite
def dags(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Edges of a random graph whose child always has the higher number; every node has an edge."""
    n = draw(st.integers(2, 9))
    edges = []
    for child in range(1, n):
        parents = draw(st.sets(st.integers(0, child - 1), min_size=0 if child > 1 else 1, max_size=3))
        edges += [(f"n{child}", f"n{parent}") for parent in sorted(parents)]
    return draw(st.permutations(edges))


@st.composite
def trees(draw: st.DrawFn) -> list[int]:
    """Parent of every node of a random forest; -1 for a root."""
    n = draw(st.integers(2, 12))
    return [-1, *(draw(st.integers(-1, i - 1)) for i in range(1, n))]


def log_probs(n: int, k: int, *, seed: int, sharp: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharp * torch.randn(n, k, generator=generator, dtype=torch.float64)).log_softmax(1)


# ---------------------------------------------------------------------- building


@given(trees())
@settings(max_examples=50, deadline=None)
def test_every_constructor_builds_the_same_tree(parents: list[int]) -> None:
    children: dict[int, list[int]] = {i: [] for i in range(-1, len(parents))}
    for child, parent in enumerate(parents):
        children[parent].append(child)

    def nested(i: int) -> dict[str, object]:
        return {f"n{j}": nested(j) for j in children[i]}

    def paths(i: int, above: list[str]) -> list[str]:
        here = [*above, f"n{i}"]
        return ["/".join(here)] if not children[i] else [p for j in children[i] for p in paths(j, here)]

    def edges(i: int) -> list[tuple[str, str | None]]:
        own = (f"n{i}", f"n{parents[i]}" if parents[i] >= 0 else None)
        return [own, *(e for j in children[i] for e in edges(j))]

    by_dict = Taxonomy.from_dict(nested(-1))
    assert by_dict == Taxonomy.from_paths([p for i in children[-1] for p in paths(i, [])])
    if all(children[i] for i in children[-1]):  # an edge list cannot hold a node without edges
        assert by_dict == Taxonomy.from_edges([e for i in children[-1] for e in edges(i)])
    assert by_dict == Taxonomy.from_state(json.loads(json.dumps(by_dict.state())))
    assert set(by_dict.classes) == {f"n{i}" for i in range(len(parents)) if not children[i]}
    assert by_dict.names[: by_dict.n_classes] == by_dict.classes


def test_levels_of_a_table_equal_the_paths_and_repeated_rows_count_once() -> None:
    rows = [("a1", "A", "T"), ("b1", "B", "T"), ("a1", "A", "T"), ("c1", "C", "U"), ("a2", "A", "T")]
    columns = dict(zip(["fine", "middle", "top"], map(list, zip(*rows, strict=True)), strict=True))
    taxonomy = Taxonomy.from_levels(columns)
    assert taxonomy.classes == ("a1", "b1", "c1", "a2")
    assert taxonomy.level_names == ("fine", "middle", "top")
    assert [taxonomy.nodes(i) for i in range(3)] == [("a1", "b1", "c1", "a2"), ("A", "B", "C"), ("T", "U")]
    assert taxonomy.nodes("top") == taxonomy.nodes(-1) == taxonomy.nodes(2)
    paths = Taxonomy.from_paths(["T/A/a1", "T/B/b1", "U/C/c1", "T/A/a2"], names=["fine", "middle", "top"])
    assert taxonomy == paths
    assert taxonomy == Taxonomy.from_levels(list(columns.values()), ["fine", "middle", "top"])
    assert taxonomy == Taxonomy.from_levels(pd.DataFrame(columns)) == Taxonomy.from_levels(pl.DataFrame(columns))
    assert taxonomy == Taxonomy.from_levels({name: np.array(column) for name, column in columns.items()})


def test_a_branch_may_fill_several_columns_with_one_node() -> None:
    taxonomy = Taxonomy.from_levels({"fine": ["a1", "a2", "b"], "coarse": ["A", "A", "b"]})
    assert taxonomy.nodes("coarse") == ("A", "b")
    assert taxonomy.membership("coarse").tolist() == [[1, 1, 0], [0, 0, 1]]
    assert taxonomy.parents("b") == ()


def test_a_name_in_two_columns_is_one_node_so_two_columns_can_be_a_list_of_edges() -> None:
    table = Taxonomy.from_levels(
        {"child": ["poodle", "dog", "cat", "animal"], "parent": ["dog", "animal", "animal", ""]}
    )
    assert table.classes == ("poodle", "cat")
    assert table == Taxonomy.from_edges([("poodle", "dog"), ("dog", "animal"), ("cat", "animal")])
    assert [table.nodes(i) for i in range(3)] == [("poodle", "cat"), ("dog", "cat"), ("animal",)]


def test_edges_may_carry_probabilities() -> None:
    taxonomy = Taxonomy.from_edges([("x", "P"), ("x", "Q"), ("y", "Q")], weights=[3, 1, 5])
    assert taxonomy.node_membership(["Q", "P"]).tolist() == [[0.25, 1], [0.75, 0]]


# ---------------------------------------------------------------------- files and errors


def write(folder: Path, text: str, name: str = "taxonomy.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_reads_as_its_columns(tmp_path: Path) -> None:
    path = write(tmp_path, '\ufeffproduct, department\n"modem, old",Hardware\n\nrefund , Billing\n')
    taxonomy = Taxonomy.from_csv(path)
    assert taxonomy == Taxonomy.from_levels(
        {"product": ["modem, old", "refund"], "department": ["Hardware", "Billing"]}
    )
    assert taxonomy == Taxonomy.from_csv(
        write(tmp_path, "product\tdepartment\nmodem, old\tHardware\nrefund\tBilling\n", "t.tsv")
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("fine,coarse\n", r"header \(fine,coarse\) and no rows"),
        ("fine,coarse\n,\n", r"header \(fine,coarse\) and no rows"),
        ("fine,fine\na,A\n", "empty or repeated name"),
        ("fine,\na,A\n", "empty or repeated name"),
        ("a1,A\na2,A\nb1,B\n", r'no header: "A" of its first line stands again in row 2'),
        ("fine,coarse\na1,A\na2\nb1,B,C\n", "2 rows without the 2 cells .* row 3 has 1, row 4 has 3"),
        ("fine,coarse\na1,A\nA,a1\n", r"cycle: a1 -> A -> a1 \(rows 2, 3\)"),
        ("fine,middle,coarse\na,b,c\nc,d,a\n", r"cycle: a -> b -> c -> d -> a \(rows 2, 2, 3, 3\)"),
        (
            "fine,coarse\na1,A\na2,\nb1,\nb2,\nb3,\n",
            r'4 orphans: "a2" has no parent \(row 3, column "coarse" is empty\).*and 1 more',
        ),
        ("f,m,c\na1,A,T\na2,,T\n", r'1 orphan: "a2" has no parent \(row 3, column "m" is empty\)'),
        ("f,m,c\na1,A,T\na2,B,\n", r'1 orphan: "B" has no parent \(row 3, column "c" is empty\)'),
        ("fine,coarse\na1,A\n,B\n", r'1 orphan: "B" has no class below it \(row 3, column "fine" is empty\)'),
        ("fine,coarse\nB,B\nb1,B\n", '"B" stands in "fine" and "coarse" of row 2 and in "coarse" of row 3'),
        ('fine,coarse\n"a1,A\n', "not a comma separated table"),
    ],
)
def test_a_bad_file_is_named_with_its_row(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(LabelError, match=message) as error:
        Taxonomy.from_csv(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.csv"
    path.write_bytes(b"fine,coarse\n\xff\xfe,A\n")
    with pytest.raises(LabelError, match="UTF-8"):
        Taxonomy.from_csv(path)
    with pytest.raises(FileNotFoundError):
        Taxonomy.from_csv(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Taxonomy.from_edges([("r", "x"), ("a", "b"), ("b", "c"), ("c", "a")]), "cycle: a -> b -> c -> a"),
        (lambda: Taxonomy.from_edges([("a", "a")]), "cycle: a -> a"),
        (lambda: Taxonomy.from_edges([("a", "A"), ("b", None)]), '1 orphan, without parent or child: "b" in row 1'),
        (lambda: Taxonomy.from_edges([]), "is empty"),
        (lambda: Taxonomy.from_edges([("", "A")]), "without a child"),
        (lambda: Taxonomy.from_edges([("a", "A")], weights=[1, 2]), "1 edges and 2 weights"),
        (lambda: Taxonomy.from_edges([("a", "A")], weights=[0]), "weight 0.0"),
        (
            lambda: Taxonomy.from_edges([("a", "A"), ("a", "A")], weights=[1, 2]),
            "two weights, 1 in row 0 and 2 in row 1",
        ),
        (lambda: Taxonomy.from_paths(["A//b"]), r'path 0 \("A//b"\) has an empty part'),
        (lambda: Taxonomy.from_paths(["A/b/A"]), "cycle: A -> b -> A|cycle: b -> A -> b"),
        (lambda: Taxonomy.from_dict({"A": {"": None}}), 'without a name under "A"'),
        (lambda: Taxonomy.from_dict({"A": {"B": ["A"]}}), "cycle"),
        (lambda: Taxonomy.from_dict({}), "is empty"),
        (lambda: Taxonomy.from_levels({}), "is empty"),
        (lambda: Taxonomy.from_levels([["a", "b"], ["A"]]), "2, 1 rows"),
        (lambda: Taxonomy.from_levels([["a"], ["A"]], ["fine"]), "2 columns and 1 level names"),
        (lambda: Taxonomy.from_levels([["a", "b"], ["A", float("nan")]]), '"b" has no parent'),
        (lambda: Taxonomy.from_paths(PATHS, names=["fine", "coarse"]), "3 levels"),
    ],
)
def test_what_cannot_be_a_taxonomy_is_named(build, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        build()


def test_unknown_names_and_levels_are_answered_with_what_comes_close(pets: Taxonomy) -> None:
    with pytest.raises(LabelError, match='"Siamse" is not in the taxonomy: did you mean "Siamese"'):
        pets.index("Siamse")
    with pytest.raises(LabelError, match='"Siamese" is not in level "level_2"'):
        pets.index("Siamese", "level_2")
    with pytest.raises(LabelError, match=r"no level 'breed'\. Expected one of .level_0"):
        pets.nodes("breed")
    with pytest.raises(LabelError, match="no level 3"):
        pets.nodes(3)
    with pytest.raises(LabelError, match="coarser"):
        pets.membership(0, of=1)
    with pytest.raises(LabelError, match="two names, or none"):
        pets.distance("Car", None)  # type: ignore[call-overload]


# ---------------------------------------------------------------------- looking up


def test_parents_children_index(pets: Taxonomy) -> None:
    assert pets.parents("Siamese") == ("Cat",)
    assert pets.children("Animal") == ("Dog", "Cat")
    assert pets.children("Dog") == pets.parents("Vehicle") == ()
    for level in (None, 0, 1, 2):
        assert [pets.index(name, level) for name in pets.nodes(level)] == list(range(len(pets.nodes(level))))
    assert "Cat" in pets
    assert "Tiger" not in pets


def test_a_class_that_ends_early_stands_for_itself(pets: Taxonomy) -> None:
    assert [pets.nodes(i) for i in range(3)] == [
        ("Siamese", "Persian", "Dog", "Car"),
        ("Cat", "Dog", "Car"),
        ("Animal", "Vehicle"),
    ]


# ---------------------------------------------------------------------- membership


@given(dags())
@settings(max_examples=60, deadline=None)
def test_membership_equals_the_walk_by_hand(edges: list[tuple[str, str]]) -> None:
    taxonomy = Taxonomy.from_edges(edges)
    by_hand = membership_by_hand(taxonomy, taxonomy.names, taxonomy.classes, first=False)
    torch.testing.assert_close(taxonomy.node_membership(), by_hand, rtol=0, atol=1e-12)
    torch.testing.assert_close(taxonomy.membership(None), by_hand, rtol=0, atol=1e-12)
    some = [taxonomy.names[-1], taxonomy.names[0], taxonomy.names[-1]]
    torch.testing.assert_close(
        taxonomy.node_membership(some), by_hand[[taxonomy.index(n) for n in some]], rtol=0, atol=1e-12
    )
    for level in range(len(taxonomy.level_names)):
        for of in range(level + 1):
            rows, sources = taxonomy.nodes(level), taxonomy.nodes(of)
            got = taxonomy.membership(level, of)
            want = membership_by_hand(taxonomy, rows, sources, first=True)
            torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
            torch.testing.assert_close(got.sum(0), torch.ones(len(sources), dtype=torch.float64))
            chained = got @ taxonomy.membership(of)
            torch.testing.assert_close(chained, taxonomy.membership(level), rtol=0, atol=1e-12)


def test_finest_level_is_the_identity_and_trees_are_zero_or_one(pets: Taxonomy) -> None:
    assert torch.equal(pets.membership(0), torch.eye(4, dtype=torch.float64))
    assert set(pets.membership(None).unique().tolist()) == {0.0, 1.0}
    assert pets.node_membership([]).shape == (0, 4)


def test_two_parents_share_a_class(diamond: Taxonomy) -> None:
    assert diamond.node_membership(["P", "Q", "T"]).tolist() == [[0.5, 0, 0, 0], [0.5, 1, 0, 0], [1, 1, 1, 0]]


@given(dags(), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_probabilities_of_a_level_are_the_membership_times_those_of_the_classes(edges, seed: int) -> None:
    taxonomy = Taxonomy.from_edges(edges)
    p = log_probs(3, taxonomy.n_classes, seed=seed, sharp=30)
    for level in (None, *range(len(taxonomy.level_names))):
        want = p.exp() @ taxonomy.membership(level).T
        torch.testing.assert_close(taxonomy.at_level(p, level).exp(), want, rtol=1e-9, atol=1e-300)


def test_level_probabilities_hold_in_the_tails_and_have_gradients(pets: Taxonomy) -> None:
    p = torch.tensor([[-900.0, -901.0, 0.0, -torch.inf]], dtype=torch.float64, requires_grad=True)
    out = pets.at_level(p, "level_1")
    assert out[0, 0].item() == pytest.approx(np.logaddexp(-900, -901), abs=1e-9)
    assert out[0, 2].item() == -np.inf
    (grad,) = torch.autograd.grad(out[0, 0], p)
    torch.testing.assert_close(grad[0, :2], torch.tensor([0.0, -1.0], dtype=torch.float64).softmax(0))
    assert not grad.isnan().any()
    assert pets.at_level(p.float(), 1).dtype == torch.float32


# ---------------------------------------------------------------------- distance


@given(dags())
@settings(max_examples=40, deadline=None)
def test_distance_equals_the_shortest_way_by_hand(edges: list[tuple[str, str]]) -> None:
    taxonomy = Taxonomy.from_edges(edges)
    got = taxonomy.distance()
    for i, a in enumerate(taxonomy.classes):
        for j, b in enumerate(taxonomy.classes):
            assert got[i, j] == distance_by_hand(taxonomy, a, b)
    a, b = taxonomy.names[0], taxonomy.names[-1]
    assert taxonomy.distance(a, b) == distance_by_hand(taxonomy, a, b)


def test_distance_counts_edges(pets: Taxonomy) -> None:
    assert pets.distance()[0].tolist() == [0, 2, 3, 5]
    assert pets.distance("Siamese", "Cat") == 1
    assert pets.distance("Cat", "Cat") == 0


# ---------------------------------------------------------------------- the deepest node


def tree(fan: list[int]) -> Taxonomy:
    names = [[""]]
    for wide in fan:
        names.append([f"{above}.{i}" if above else str(i) for above in names[-1] for i in range(wide)])
    return Taxonomy.from_paths(
        ["/".join(".".join(leaf.split(".")[: i + 1]) for i in range(len(fan))) for leaf in names[-1]]
    )


TAXONOMIES = {
    "two roots": tree([2, 3, 4]),
    "one root": tree([1, 5, 4]),
    "flat": Taxonomy.from_levels([[f"c{i}" for i in range(6)]]),
    "mixed depth": Taxonomy.from_paths([*PATHS, "Vehicle/Truck/Red", "Vehicle/Truck/Blue", "Stone"]),
    "several parents": Taxonomy.from_edges(
        [(f"c{i}", f"m{j}") for i in range(12) for j in {i % 4, (i * 5 + 1) % 4}]
        + [(f"m{j}", f"t{j % 2}") for j in range(4)]
    ),
}


def is_right(taxonomy: Taxonomy, node: Tensor, truth: Tensor) -> Tensor:
    return (node < 0) | (taxonomy.node_membership()[node.clamp(min=0), truth] > 0)


@pytest.mark.parametrize("name", TAXONOMIES)
@pytest.mark.parametrize("confidence", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_the_realised_accuracy_is_the_confidence(name: str, confidence: float) -> None:
    taxonomy = TAXONOMIES[name]
    generator = torch.Generator().manual_seed(1)
    for sharp in (0.5, 1.5, 3.0):
        p = log_probs(8000, taxonomy.n_classes, seed=int(10 * sharp), sharp=sharp)
        truth = torch.multinomial(p.exp(), 1, generator=generator)[:, 0]
        ceiling = p.exp().amax(1).mean().item()
        node, prob = taxonomy.deepest(p, confidence)
        realised = is_right(taxonomy, node, truth).double().mean().item()
        assert realised == pytest.approx(prob.mean().item(), abs=0.015)
        if confidence >= ceiling:
            assert prob.mean().item() == pytest.approx(confidence, abs=0.005)
            assert abs(realised - confidence) < 0.03
        else:  # the classes themselves are right more often than asked
            assert torch.equal(node, p.argmax(1))
        # a threshold from other rows does as well
        held_out = log_probs(8000, taxonomy.n_classes, seed=int(10 * sharp) + 1, sharp=sharp)
        again, _ = taxonomy.deepest(p, confidence, threshold=taxonomy.threshold(held_out, confidence))
        assert abs(is_right(taxonomy, again, truth).double().mean().item() - max(confidence, ceiling)) < 0.03


@given(dags(), st.integers(0, 10**6), st.floats(0, 0.999))
@settings(max_examples=60, deadline=None)
def test_a_threshold_takes_the_most_probable_of_the_lowest_qualifying_nodes(edges, seed: int, threshold: float) -> None:
    taxonomy = Taxonomy.from_edges(edges)
    p = log_probs(4, taxonomy.n_classes, seed=seed)
    under = p.exp() @ (taxonomy.node_membership() > 0).double().T
    roots = [name for name in taxonomy.names if not taxonomy.parents(name)]
    node, prob = taxonomy.deepest(p, 0.5, threshold=threshold)
    for row in range(4):
        at = {name: under[row, i].item() for i, name in enumerate(taxonomy.names)}
        lowest = {
            name: q
            for name, q in at.items()
            if q >= threshold and not any(at[c] >= threshold for c in taxonomy.children(name))
        }
        if all(at[root] < threshold for root in roots):
            assert node[row] == -1 or len(roots) == 1
            assert prob[row].item() == pytest.approx(1)
        else:
            assert prob[row].item() == pytest.approx(max(lowest.values()), abs=1e-12)
            assert prob[row].item() == pytest.approx(at[taxonomy.names[node[row]]], abs=1e-12)


@given(dags(), st.integers(0, 10**6), st.floats(0.05, 0.999))
@settings(max_examples=40, deadline=None)
def test_a_row_alone_gets_the_plain_rule(edges, seed: int, confidence: float) -> None:
    taxonomy = Taxonomy.from_edges(edges)
    p = log_probs(1, taxonomy.n_classes, seed=seed)
    node, prob = taxonomy.deepest(p, confidence)
    assert prob.item() >= confidence - 1e-9
    under = {n: (p.exp() @ (taxonomy.node_membership([n]) > 0).double().T).item() for n in taxonomy.names}
    if confidence > 0.5 and node >= 0:
        children = taxonomy.children(taxonomy.names[node])
        assert all(under[child] < confidence for child in children)


def test_limits_of_the_confidence(pets: Taxonomy) -> None:
    p = log_probs(200, 4, seed=3)
    assert (pets.deepest(p, 1.0)[0] == -1).all()
    assert torch.equal(pets.deepest(p, 0.0)[0], p.argmax(1))
    rooted = tree([1, 3, 2])
    node, prob = rooted.deepest(log_probs(50, 6, seed=4), 1.0)
    assert (node == rooted.index("0")).all()
    assert torch.equal(prob, torch.ones_like(prob))
    certain = torch.tensor([[0.0, -torch.inf, -torch.inf, -torch.inf]])
    assert pets.deepest(certain, 1.0)[0].tolist() == [0]
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(LabelError, match="from 0 to 1"):
            pets.deepest(p, wrong)
    with pytest.raises(LabelError, match=r"Expected \(N, 4\)"):
        pets.deepest(p[:, :3], 0.9)
    with pytest.raises(LabelError, match="NaN in row 1"):
        pets.at_level(torch.tensor([[0.0] * 4, [torch.nan] * 4]), 1)
    with pytest.raises(LabelError, match="at least one row"):
        pets.threshold(p[:0], 0.9)


def test_chunks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    taxonomy = TAXONOMIES["two roots"]
    p = log_probs(300, taxonomy.n_classes, seed=5)
    whole = taxonomy.deepest(p, 0.8)
    monkeypatch.setattr("anygrain.labels.taxonomy._CELLS", 100)
    assert all(torch.equal(a, b) for a, b in zip(whole, taxonomy.deepest(p, 0.8), strict=True))


# ---------------------------------------------------------------------- another list of classes


def test_relabel_reorders_and_extends(pets: Taxonomy) -> None:
    other = pets.relabel(["Car", "Rock", "Dog", "Persian", "Siamese"])
    assert other.classes == ("Car", "Rock", "Dog", "Persian", "Siamese")
    assert other.nodes(2) == ("Animal", "Vehicle", "Rock")
    shared = [other.index(name) for name in pets.classes]
    for level in (1, 2):
        rows = [other.index(name, level) for name in pets.nodes(level)]
        assert torch.equal(other.membership(level)[rows][:, shared], pets.membership(level))
        assert torch.equal(other.membership(level).sum(0), torch.ones(5, dtype=torch.float64))
    assert other.relabel(pets.classes, drop=True) == pets
    assert pets.relabel(pets.classes) == pets
    assert other != pets


def test_relabel_refuses_what_does_not_fit(pets: Taxonomy) -> None:
    with pytest.raises(LabelError, match='lacks 2 classes of the taxonomy: "Dog", "Car"'):
        pets.relabel(["Siamese", "Persian"])
    small = pets.relabel(["Persian", "Siamese"], drop=True)
    assert small.names == ("Persian", "Siamese", "Cat", "Animal")
    with pytest.raises(LabelError, match='holds parents of the taxonomy: "Cat"'):
        pets.relabel(["Siamese", "Persian", "Dog", "Car", "Cat"])
    with pytest.raises(LabelError, match='Repeated: "Dog"'):
        pets.relabel(["Dog", "Dog"])


def test_large_taxonomies_stay_sparse() -> None:
    n = 20_000
    columns = [[f"c{i}" for i in range(n)], [f"m{i // 10}" for i in range(n)], [f"t{i // 1000}" for i in range(n)]]
    taxonomy = Taxonomy.from_levels(columns)
    p = torch.zeros(2, n, dtype=torch.float64).log_softmax(1)
    torch.testing.assert_close(taxonomy.at_level(p, 2).exp(), torch.full((2, 20), 0.05, dtype=torch.float64))
    assert torch.equal(taxonomy.membership(2, of=1).sum(1), torch.full((20,), 100.0, dtype=torch.float64))
    assert taxonomy.deepest(p, 0.9)[0].tolist() == [-1, -1]
