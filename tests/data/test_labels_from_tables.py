"""Every kind of label, read from tables as they come, is the kind built by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from anygrain.data.config import parse_config, with_paths
from anygrain.data.dataset import Dataset, read_dataset
from anygrain.data.error import InputError
from anygrain.labels import (
    AnyOf,
    Bags,
    Candidates,
    Coarse,
    Compare,
    Complementary,
    Counts,
    Crowd,
    Exact,
    Interval,
    Noisy,
    Pairs,
    PairsUnlabeled,
    Proportions,
    Rules,
    Soft,
    Taxonomy,
)

NAMES = ("modem", "phone", "router")
TAXONOMY = "product,department\nmodem,network\nphone,voice\nrouter,network\n"


def dataset(folder: Path, table: str, *labels: dict[str, Any], **more: Any) -> Dataset:
    """A data set from a table of rows and entries of [[labels]]."""
    (folder / "rows.csv").write_text(table)
    (folder / "taxonomy.csv").write_text(TAXONOMY)
    data = {"source": "rows.csv", "id": "id", "columns": ["x"], **more.pop("data", {})}
    classes = [] if any(label.get("taxonomy") for label in labels) else list(NAMES)
    raw = {"classes": classes, "data": data, "labels": list(labels), **more}
    return read_dataset(with_paths(parse_config(raw), folder))


def same(found: Any, wanted: Any) -> None:
    """Equal log-likelihoods and posteriors at random log-probabilities."""
    assert type(found) is type(wanted)
    log_probs = torch.randn(wanted.n_instances, wanted.n_classes, dtype=torch.float64).log_softmax(1)
    for one, two in zip(found.infer(log_probs), wanted.infer(log_probs), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def only(found: Dataset) -> Any:
    assert len(found.evidence) == 1
    return found.evidence[0].labels


ROWS = "id,x,product\na,1,modem\nb,2,\nc,3,router\nd,4,phone\n"


def test_exact(tmp_path: Path) -> None:
    found = dataset(tmp_path, ROWS, {"kind": "Exact", "column": "product"})
    same(only(found), Exact(torch.tensor([0, -1, 2, 1]), 3))
    assert found.evidence[0].n_labels == 3
    assert found.exact().tolist() == [0, -1, 2, 1]


def test_labels_of_their_own_table_join_by_id_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "gold.csv").write_text("id,product\nd,phone\na,modem\nc,router\nc,router\n")
    found = dataset(
        tmp_path, "id,x\na,1\nb,2\nc,3\nd,4\n", {"kind": "Exact", "column": "product", "source": "gold.csv"}
    )
    same(only(found), Exact(torch.tensor([0, -1, 2, 1]), 3))


def test_ids_keep_their_zeros(tmp_path: Path) -> None:
    (tmp_path / "gold.csv").write_text("id,product\n007,phone\n7,modem\n")
    found = dataset(tmp_path, "id,x\n7,1\n007,2\n", {"kind": "Exact", "column": "product", "source": "gold.csv"})
    assert found.exact().tolist() == [0, 1]


@pytest.mark.parametrize(("keep", "wanted"), [("first", 0), ("last", 1)])
def test_repeated_rows_of_a_label_table(tmp_path: Path, keep: str, wanted: int) -> None:
    (tmp_path / "gold.csv").write_text("id,product\na,modem\na,phone\nb,router\n")
    label = {"kind": "Exact", "column": "product", "source": "gold.csv", "repeats": keep}
    assert dataset(tmp_path, "id,x\na,1\nb,2\n", label).exact().tolist() == [wanted, 2]


def test_aliases_missing_words_and_case(tmp_path: Path) -> None:
    table = "id,x,product\na,1,MODEM\nb,2,n/a\nc,3,rooter\nd,4,Phone\n"
    how = {"missing": "N/A", "aliases": {"Rooter": "router"}, "fold_case": True}
    found = dataset(tmp_path, table, {"kind": "Exact", "column": "product"}, data=how)
    assert found.exact().tolist() == [0, -1, 2, 1]


def test_coarse_labels_of_any_depth(tmp_path: Path) -> None:
    table = "id,x,where\na,1,network\nb,2,\nc,3,phone\n"
    found = dataset(tmp_path, table, {"kind": "Coarse", "column": "where", "taxonomy": "taxonomy.csv", "error": 0.1})
    taxonomy = Taxonomy.from_csv(tmp_path / "taxonomy.csv")
    nodes = torch.tensor([taxonomy.index("network"), -1, taxonomy.index("phone")])
    same(only(found), Coarse(nodes, taxonomy, "any", error=0.1))


def test_candidates_as_cells_lists_and_columns(tmp_path: Path) -> None:
    wanted = torch.tensor([[True, False, True], [True, True, True], [False, True, False]])
    cells = dataset(tmp_path, "id,x,c\na,1,modem|router\nb,2,\nc,3,phone\n", {"kind": "Candidates", "column": "c"})
    lists = 'id,x,c\na,1,"[""modem"", ""router""]"\nb,2,\nc,3,"[""phone""]"\n'
    columns = "id,x,is_phone,is_modem,is_router\na,1,0,1,1\nb,2,,,\nc,3,1,0,0\n"
    as_columns = {"kind": "Candidates", "columns": ["is_*"]}
    for found in (
        cells,
        dataset(tmp_path, lists, {"kind": "Candidates", "column": "c"}),
        dataset(tmp_path, columns, as_columns),
    ):
        same(only(found), Candidates(wanted))
        assert found.evidence[0].rows.tolist() == [True, False, True]


def test_candidates_of_several_rows_per_item_and_parquet_lists(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("id,c\na,modem\nb,phone\na,router\n")
    parquet.write_table(
        pa.table({"id": ["b", "a"], "c": pa.array([["phone"], ["router", "modem"]])}), tmp_path / "c.parquet"
    )
    wanted = torch.tensor([[True, False, True], [False, True, False]])
    for source in ("c.csv", "c.parquet"):
        found = dataset(tmp_path, "id,x\na,1\nb,2\n", {"kind": "Candidates", "column": "c", "source": source})
        same(only(found), Candidates(wanted))


def test_complementary(tmp_path: Path) -> None:
    found = dataset(tmp_path, "id,x,n\na,1,modem|router\nb,2,\n", {"kind": "Complementary", "column": "n"})
    same(only(found), Complementary(torch.tensor([[True, False, True], [False, False, False]])))


def test_interval(tmp_path: Path) -> None:
    found = dataset(
        tmp_path,
        "id,x,low,high\na,1,modem,phone\nb,2,phone,\nc,3,,\n",
        {"kind": "Interval", "low": "low", "high": "high"},
    )
    same(only(found), Interval(torch.tensor([0, 1, -1]), torch.tensor([1, -1, -1]), 3))


def test_soft(tmp_path: Path) -> None:
    table = "id,x,p_router,p_modem\na,1,0.25,0.75\nb,2,,\n"
    found = dataset(tmp_path, table, {"kind": "Soft", "columns": "p_*"})
    probs = torch.tensor([[0.75, 0.0, 0.25], [torch.nan] * 3])
    same(only(found), Soft(probs))
    counts = "id,x,p_router,p_modem\na,1,1,3\nb,2,,\n"
    same(only(dataset(tmp_path, counts, {"kind": "Soft", "columns": "p_*", "normalize": True})), Soft(probs))


def test_noisy_with_a_transition_table_in_another_order(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("truth,router,modem,phone\nphone,0,0.1,0.9\nmodem,0.2,0.8,0\nrouter,1,0,0\n")
    found = dataset(tmp_path, ROWS, {"kind": "Noisy", "column": "product", "transition": "t.csv"})
    transition = torch.tensor([[0.8, 0, 0.2], [0.1, 0.9, 0], [0, 0, 1.0]], dtype=torch.float64)
    same(only(found), Noisy(torch.tensor([0, -1, 2, 1]), 3, transition))


def test_crowd_as_columns_and_as_votes(tmp_path: Path) -> None:
    columns = "id,x,w_1,w_2\na,1,modem,phone\nb,2,,\nc,3,,router\n"
    wide = dataset(tmp_path, columns, {"kind": "Crowd", "columns": ["w_*"], "channel": "OneCoin"})
    (tmp_path / "votes.csv").write_text("item,who,vote\nc,w_2,router\na,w_1,modem\na,w_2,phone\nb,w_1,\n")
    votes = {"kind": "Crowd", "source": "votes.csv", "item": "item", "annotator": "who", "vote": "vote"}
    long = dataset(tmp_path, "id,x\na,1\nb,2\nc,3\n", {**votes, "channel": "OneCoin"})
    wanted = Crowd(torch.tensor([0, 0, 2]), torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]), 3, 3, "one_coin")
    same(only(wide), wanted)
    same(only(long), wanted)
    assert long.evidence[0].record_source.tolist() == ["w_2", "w_1", "w_2"]
    assert long.notes == [
        "votes.csv: 1 of 4 votes are empty or of nobody; 1 row would have no vote left. They are kept as unlabelled."
    ]


@pytest.mark.parametrize(("keep", "votes"), [("first", [1, 0]), ("last", [2, 0]), ("both", [1, 0, 2])])
def test_repeated_votes(tmp_path: Path, keep: str, votes: list[int]) -> None:
    (tmp_path / "votes.csv").write_text("id,who,vote\na,w,phone\nb,w,modem\na,w,router\n")
    label = {"kind": "Crowd", "source": "votes.csv", "annotator": "who", "vote": "vote", "repeats": keep}
    labels = only(dataset(tmp_path, "id,x\na,1\nb,2\n", label))
    assert sorted(labels.votes.tolist()) == sorted(votes)


def test_counts_of_votes(tmp_path: Path) -> None:
    table = "id,x,n_phone,n_modem\na,1,2,1\nb,2,,\nc,3,0,1\n"
    found = dataset(tmp_path, table, {"kind": "Crowd", "counts": ["n_*"], "channel": "OneCoin"})
    items, votes = torch.tensor([0, 0, 0, 2]), torch.tensor([1, 1, 0, 0])
    same(only(found), Crowd(items, torch.zeros(4, dtype=torch.long), votes, 3, 3, "one_coin"))
    assert found.evidence[0].rows.tolist() == [True, False, True]


def test_rules(tmp_path: Path) -> None:
    table = "id,x,r_1,r_2\na,1,modem,\nb,2,,\nc,3,phone,router\n"
    found = dataset(tmp_path, table, {"kind": "Rules", "columns": ["r_*"]})
    same(only(found), Rules(torch.tensor([[0, -1], [-1, -1], [1, 2]]), 3))
    assert found.evidence[0].record_row.tolist() == [0, 2, 2]
    assert found.evidence[0].record_source.tolist() == ["r_1", "r_1", "r_2"]
    assert found.evidence[0].record_value.tolist() == ["modem", "phone", "router"]


BAGS = "id,x,bag\na,1,s1\nb,2,s2\nc,3,s1\nd,4,\ne,5,s2\n"
MEMBERS = torch.tensor([0, 1, 0, -1, 1])


def test_any_of_from_a_table_of_bags_and_from_a_column(tmp_path: Path) -> None:
    (tmp_path / "bags.csv").write_text("bag,found\ns2,no\ns1,yes\n")
    label = {"kind": "AnyOf", "column": "found", "target": ["phone", "router"]}
    wanted = AnyOf(Bags.from_ids(MEMBERS), torch.tensor([True, False]), [1, 2], 3)
    own = dataset(tmp_path, BAGS, {**label, "source": "bags.csv"}, data={"bag": "bag"})
    log_probs = torch.randn(5, 3, dtype=torch.float64).log_softmax(1)
    torch.testing.assert_close(only(own).posterior(log_probs), wanted.posterior(log_probs), rtol=0, atol=1e-9)
    column = BAGS.replace("bag\n", "bag,found\n").replace("s1\n", "s1,1\n").replace("s2\n", "s2,0\n")
    column = column.replace("d,4,\n", "d,4,,\n")
    same(only(dataset(tmp_path, column, label, data={"bag": "bag"})), wanted)


def test_counts_in_several_columns(tmp_path: Path) -> None:
    (tmp_path / "bags.csv").write_text("bag,n_router,n_modem\ns1,1,1\ns2,,2\n")
    found = dataset(tmp_path, BAGS, {"kind": "Counts", "source": "bags.csv", "columns": ["n_*"]}, data={"bag": "bag"})
    same(only(found), Counts(Bags.from_ids(MEMBERS), torch.tensor([[1, -1, 1], [2, -1, -1]])))


def test_proportions(tmp_path: Path) -> None:
    (tmp_path / "bags.csv").write_text("bag,modem,phone,router\ns1,0.5,0.5,0\ns2,1,0,0\n")
    label = {"kind": "Proportions", "source": "bags.csv", "columns": list(NAMES)}
    found = dataset(tmp_path, BAGS, label, data={"bag": "bag"})
    same(only(found), Proportions(Bags.from_ids(MEMBERS), torch.tensor([[0.5, 0.5, 0], [1, 0, 0]])))


def test_pairs(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("one,two,same\nc,a,yes\na,b,different\n")
    label = {"kind": "Pairs", "source": "pairs.csv", "first": "one", "second": "two", "column": "same"}
    found = dataset(tmp_path, "id,x\na,1\nb,2\nc,3\n", label)
    same(only(found), Pairs(torch.tensor([2, 0]), torch.tensor([0, 1]), torch.tensor([1, 0]), 3, 3))


def test_pairs_beside_rows_drawn_alone(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("one,two,same\nc,a,yes\nb,e,no\n")
    label = {"kind": "PairsUnlabeled", "source": "pairs.csv", "first": "one", "second": "two", "column": "same"}
    prior = {"router": 0.2, "modem": 0.5, "phone": 0.3}
    found = dataset(tmp_path, "id,x\na,1\nb,2\nc,3\nd,4\ne,5\n", {**label, "prior": prior, "error": 0.1})
    pairs = torch.tensor([[2, 0], [1, 4]])
    share = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    wanted = PairsUnlabeled(pairs, torch.tensor([1, 0]), 5, share, error=0.1)
    log_probs = torch.randn(5, 3, dtype=torch.float64).log_softmax(1)
    for one, two in zip(found.labels.infer(log_probs), wanted.infer(log_probs), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.labels.log_prior_shift, wanted.log_prior_shift)
    torch.testing.assert_close(found.labels.pooled_prior, wanted.pooled_prior)
    drawn, answered = found.evidence
    assert drawn.name != answered.name
    assert drawn.record_value.tolist() == ["same", "different", "same", "", "different"]
    assert answered.record_source.tolist() == ["c and a", "b and e"]
    assert answered.record_value.tolist() == ["same", "different"]


def test_rules_that_depend_on_each_other(tmp_path: Path) -> None:
    table = "id,x,r_1,r_2,r_3\na,1,modem,modem,\nb,2,phone,,phone\nc,3,,router,router\n"
    votes = torch.tensor([[0, 0, -1], [1, -1, 1], [-1, 2, 2]])
    label = {"kind": "Rules", "columns": ["r_*"]}
    found = dataset(tmp_path, table, {**label, "dependencies": [["r_1", "r_3"]]})
    same(only(found), Rules(votes, 3, dependencies=[(0, 2)]))
    assert only(found).channel.pairs.tolist() == [[0, 2]]
    same(only(dataset(tmp_path, table, {**label, "dependencies": "none"})), Rules(votes, 3, dependencies="none"))
    with pytest.raises(InputError, match=r'"r_9" is none of its columns\. Expected pairs of "r_1"'):
        dataset(tmp_path, table, {**label, "dependencies": [["r_1", "r_9"]]})
    with pytest.raises(InputError, match="dependencies"):
        dataset(tmp_path, table, {**label, "dependencies": "some"})
    cycle = [["r_1", "r_2"], ["r_2", "r_3"], ["r_1", "r_3"]]
    with pytest.raises(InputError, match="rules 0 and 2 are joined by other pairs already"):
        dataset(tmp_path, table, {**label, "dependencies": cycle})


def test_compare(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("one,two,said\nc,a,left\na,b,<\nb,c,\n")
    label = {"kind": "Compare", "source": "pairs.csv", "first": "one", "second": "two", "column": "said"}
    found = dataset(tmp_path, "id,x\na,1\nb,2\nc,3\n", label)
    same(only(found), Compare(torch.tensor([[2, 0], [0, 1], [1, 2]]), [5, 4, -1], 3))
    assert found.evidence[0].n_labels == 2


def test_ordinal_kinds_need_the_order_of_classes(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("one,two,said\nc,a,left\n")
    compare = {"kind": "Compare", "source": "pairs.csv", "first": "one", "second": "two", "column": "said"}
    interval = {"kind": "Interval", "low": "low", "high": "high"}
    crowd = {"kind": "Crowd", "columns": ["y"], "channel": "Ordinal"}
    exact = {"kind": "Exact", "column": "y"}
    words, numbers = "id,x,y,low,high\na,1,bad,bad,\nb,2,good,,good\nc,3,,,\n", "id,x,y,low,high\na,1,9,,9\nc,2,10,9,\n"
    for label in (compare, interval, crowd):
        with pytest.raises(InputError, match=r"ordinal kinds need ordered classes: .* from low to high"):
            dataset(tmp_path, words, exact, label, classes=[])
        assert dataset(tmp_path, words, exact, label, classes=["bad", "good"]).classes.names == ("bad", "good")
        assert dataset(tmp_path, numbers, exact, label, classes=[]).classes.names == ("9", "10")


def test_all_kinds_together_share_one_class_list(tmp_path: Path) -> None:
    (tmp_path / "bags.csv").write_text("bag,found\ns2,yes\ns1,yes\n")
    (tmp_path / "pairs.csv").write_text("a,b,same\na,c,yes\n")
    table = (
        "id,x,bag,product,where,maybe,w_1,w_2\na,1,s1,modem,network,modem|phone,modem,\nb,2,s2,,voice,,phone,phone\n"
    )
    table += "c,3,s1,,network,modem|router,,modem\n"
    found = dataset(
        tmp_path,
        table,
        {"kind": "Exact", "column": "product"},
        {"kind": "Coarse", "column": "where"},
        {"kind": "Candidates", "column": "maybe"},
        {"kind": "Crowd", "columns": ["w_*"]},
        {"kind": "AnyOf", "source": "bags.csv", "column": "found", "target": "modem", "error": 0.01},
        {"kind": "Pairs", "source": "pairs.csv", "first": "a", "second": "b", "column": "same"},
        data={"bag": "bag"},
        taxonomy="taxonomy.csv",
    )
    assert found.labels.class_names == NAMES
    posterior = found.labels.posterior(torch.full((3, 3), -np.log(3), dtype=torch.float64))
    torch.testing.assert_close(posterior[0], torch.tensor([1.0, 0, 0], dtype=torch.float64))
    assert posterior[1].argmax() == 1
    assert posterior[2].argmax() == 0


def test_classes_are_found_in_the_labels_where_nothing_lists_them(tmp_path: Path) -> None:
    found = dataset(tmp_path, "id,x,y\na,1,10\nb,2,9\nc,3,10\n", {"kind": "Exact", "column": "y"}, classes=[])
    assert found.classes.names == ("9", "10")


# -- what is refused --------------------------------------------------------------------------------------------------

EXACT = {"kind": "Exact", "column": "product"}
GOLD = {"kind": "Exact", "column": "product", "source": "gold.csv"}
COUNTS = {"kind": "Counts", "source": "bags.csv", "columns": ["n_*"]}
SHARES = {"kind": "Proportions", "source": "bags.csv", "columns": ["n_*"]}
PAIRS = {"kind": "Pairs", "source": "pairs.csv", "first": "a", "second": "b", "column": "same"}
PRIOR = {"modem": 0.5, "phone": 0.3, "router": 0.2}
DRAWN = {**PAIRS, "kind": "PairsUnlabeled", "prior": PRIOR}
VOTES = {"kind": "Crowd", "source": "votes.csv", "annotator": "who", "vote": "vote"}
PLAIN = "id,x\na,1\nb,2\nc,3\n"


@pytest.mark.parametrize(
    ("table", "label", "files", "message"),
    [
        (
            "id,x,department,n,m,o\na,1,network,1,1,1\n",
            {"kind": "Coarse", "column": "departmnt", "taxonomy": "taxonomy.csv"},
            {},
            'rows.csv has no column "departmnt". Did you mean "department"? Columns: id, x, department, ... (3 more)',
        ),
        (
            "id,x,p_modem,p_phone\na,1,0.5,0.33\nb,2,0.5,\nc,3,0.5,0.5\n",
            {"kind": "Soft", "columns": ["p_*"]},
            {},
            "rows.csv: 1 of 3 rows do not sum to 1 (first: row a sums to 0.83) and 1 contain NaN (row b). Fix them "
            "or pass "
            "--set labels.p.normalize=true",
        ),
        (
            "id,x,product\na,1,modern\nb,2,modern\nc,3,n/a\nd,4,modem\n",
            {**EXACT, "taxonomy": "taxonomy.csv"},
            {},
            'rows.csv: 2 values of "product" are not in taxonomy.csv: "modern" (2 rows, did you mean "modem"?), "n/a" '
            '(1 row, treat as missing? --set missing="n/a")',
        ),
        (
            "id,x,product\na,1,Modem\n",
            EXACT,
            {},
            'rows.csv: 1 value of "product" is not in the setting classes: "Modem" (1 row, the same as "modem"? --set '
            "fold_case=true)",
        ),
        (
            PLAIN,
            VOTES,
            {"votes.csv": "id,who,vote\na,w2,modem\nb,w2,phone\na,w2,router\n"},
            'votes.csv: 1 repeated (annotator, row) pair, first w2 on row a: "modem" and "router". Keep last, first or '
            'both? --set labels.votes.repeats="last"',
        ),
        (
            PLAIN,
            GOLD,
            {"gold.csv": "id,product\na,modem\na,phone\n"},
            'gold.csv: 1 repeated row of "product", first row a: "modem" and "phone". Keep last or first? --set '
            'labels.gold.repeats="last"',
        ),
        (
            "id,x\n01,1\n02,2\n",
            GOLD,
            {"gold.csv": "id,product\n1,modem\n02,phone\nz,phone\n"},
            'gold.csv: 2 rows are for rows that rows.csv does not have, id = "1", "z". Zero-padded? There is "01". '
            'Expected values of "id", such as "01", "02". Leave them out with --set labels.gold.unknown_rows="drop"',
        ),
        (
            "id,x,product\na,1,modem\nb,2,phone\na,3,phone\n",
            EXACT,
            {},
            'rows.csv: 1 row id of "id" stands in several rows, first "a" in rows 1 and 3. Expected one row per '
            "id; several "
            'labels of a row belong in a table of their own ([[labels]] source = "...")',
        ),
        (
            BAGS,
            COUNTS,
            {"bags.csv": "bag,n_modem\ns1,3\ns2,5\n"},
            'bags.csv, bag "s1" (and 1 more bag): counts sum to 3, but 2 rows of rows.csv belong to it',
        ),
        (
            BAGS,
            COUNTS,
            {"bags.csv": "bag,n_modem,n_phone\ns1,0.5,0.5\n"},
            'bags.csv, bag "s1": the count 0.5 is not a whole number of 0 or more. Are these shares? --set '
            'labels.bags.kind="Proportions"',
        ),
        (
            BAGS,
            SHARES,
            {"bags.csv": "bag,n_modem,n_phone,n_router\ns1,0.5,0.5,0.12\ns2,1,0,0\n"},
            'bags.csv, bag "s1": shares sum to 1.12 over 3 classes. Expected 1 +- 0.001. Rescale them? --set '
            "labels.bags.normalize=true",
        ),
        (
            BAGS,
            SHARES,
            {"bags.csv": "bag,n_modem,n_phone,n_router\ns1,1,1,0\ns2,2,0,0\n"},
            'bags.csv, bag "s1" (and 1 more bag): shares sum to 2.00 over 3 classes. Expected 1 +- 0.001. Are these '
            'counts? --set labels.bags.kind="Counts"',
        ),
        (
            BAGS,
            COUNTS,
            {"bags.csv": "bag,n_modem\ns01,1\ns9,1\n"},
            'bags.csv names 2 bags that no row of rows.csv belongs to: s01, s9 (looked in "bag"). Zero-padded? '
            "There is "
            '"s1".',
        ),
        (
            BAGS,
            COUNTS,
            {"bags.csv": "bag,n_modem\ns1,1\ns1,2\n"},
            'bags.csv lists 1 bag more than once: "s1". Expected one row per bag',
        ),
        (
            BAGS,
            {"kind": "AnyOf", "source": "bags.csv", "column": "found", "target": "modem"},
            {"bags.csv": "bag,found\ns1,maybe\ns2,1\n"},
            'bags.csv: 1 cell of "found" mean neither yes nor no: "maybe". Expected "1", "true", ... (2 more) or "0", '
            '"false", ... (2 more); other words: --set labels.bags.yes=\'["..."]\'',
        ),
        (
            PLAIN,
            PAIRS,
            {"pairs.csv": "a,b,same\na,a,yes\n"},
            "pairs.csv: 1 pair of a row with itself (first: row a)",
        ),
        (
            PLAIN,
            DRAWN,
            {"pairs.csv": "a,b,same\na,b,yes\nb,c,no\n"},
            'labels "pairs" (PairsUnlabeled): row 1 stands in two pairs; pairs drawn as pairs share no row (answers '
            "about one sample are Pairs)",
        ),
        (
            PLAIN,
            DRAWN,
            {"pairs.csv": "a,b,same\na,b,\n"},
            'labels "pairs" (PairsUnlabeled): pair 0 has no answer; expected 1 (similar) or 0 (dissimilar)',
        ),
        (
            PLAIN,
            {**DRAWN, "prior": {"modem": 0.5, "phone": 0.5}},
            {"pairs.csv": "a,b,same\na,b,yes\n"},
            'labels "pairs" (PairsUnlabeled): the class prior holds 0; expected probabilities above 0 and below 1',
        ),
        (
            PLAIN,
            {**DRAWN, "prior": {**PRIOR, "phone": 0.4}},
            {"pairs.csv": "a,b,same\na,b,yes\n"},
            'labels "pairs" (PairsUnlabeled): the class prior sums to 1.1; expected 1',
        ),
        (
            "id,x,low,high\na,1,phone,modem\n",
            {"kind": "Interval", "low": "low", "high": "high"},
            {},
            'rows.csv: 1 row with a low end above the high one (first: row a, "phone" to "modem"). Order of '
            "classes: modem, "
            "phone, router",
        ),
        (
            PLAIN,
            {"kind": "Compare", "source": "pairs.csv", "first": "a", "second": "b", "column": "said"},
            {"pairs.csv": "a,b,said\na,b,better\n"},
            'pairs.csv, "said": the relation of pair 0 is "better"; expected one of >, >=, =, <=, <, left, right, '
            "or 0..6 (empty or -1 is missing)",
        ),
        (
            "id,x,n\na,1,modem|phone|router\n",
            {"kind": "Complementary", "column": "n"},
            {},
            'rows.csv: 1 row of "n" rule out every class (first: row a)',
        ),
        (
            PLAIN,
            GOLD,
            {"gold.csv": ""},
            "gold.csv is empty. Expected a header and at least one row",
        ),
        (
            "id,x,product\na,1,\nb,2,\n",
            EXACT,
            {},
            'labels "product" (Exact): rows.csv holds none in "product"',
        ),
    ],
)
def test_message(tmp_path: Path, table: str, label: dict[str, Any], files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    data = {"bag": "bag"} if table == BAGS else {}
    with pytest.raises(InputError) as caught:
        dataset(tmp_path, table, label, data=data)
    assert str(caught.value) == message


def test_features_with_gaps_name_their_columns(tmp_path: Path) -> None:
    table = "id,e_1,e_2,product\na,1,2,modem\nb,,2,phone\nc,3,inf,phone\n"
    with pytest.raises(InputError) as caught:
        dataset(tmp_path, table, EXACT, data={"features": "e_*", "columns": []})
    assert str(caught.value) == (
        'rows.csv: 2 feature columns with empty or infinite cells: "e_1" (1 cell), "e_2" (1 cell) (first: row b). Fill '
        "them, or move the columns to columns = [...], where empty cells are filled with the mean"
    )


def test_taxonomy_with_a_cycle_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "cycle.csv").write_text("a,b\nx,y\ny,x\n")
    with pytest.raises(InputError, match=r"cycle\.csv"):
        dataset(tmp_path, ROWS, {**EXACT, "taxonomy": "cycle.csv"}, classes=[])


def test_contradictions_are_found_and_explained(tmp_path: Path) -> None:
    table = "id,x,product,where\na,1,modem,network\nb,2,modem,voice\nc,3,phone,network\n"
    labels = [EXACT, {"kind": "Coarse", "column": "where"}]
    found = dataset(tmp_path, table, *labels, taxonomy="taxonomy.csv")
    assert [(c.row, c.problem) for c in found.conflicts] == [
        ("b", 'where "voice" excludes product "modem" (parent "network")'),
        ("c", 'where "network" excludes product "phone" (parent "voice")'),
    ]
    uniform = torch.full((3, 3), -np.log(3), dtype=torch.float64)
    assert found.labels.contradictions(uniform).tolist() == [False, True, True]


def test_a_bag_that_contradicts_its_members_is_found(tmp_path: Path) -> None:
    (tmp_path / "bags.csv").write_text("bag,found\ns1,no\ns2,yes\n")
    table = BAGS.replace("bag\n", "bag,product\n").replace("a,1,s1\n", "a,1,s1,modem\n").replace("2,s2\n", "2,s2,\n")
    table = table.replace("3,s1\n", "3,s1,\n").replace("4,\n", "4,,\n").replace("5,s2\n", "5,s2,\n")
    any_of = {"kind": "AnyOf", "source": "bags.csv", "column": "found", "target": "modem"}
    found = dataset(tmp_path, table, EXACT, any_of, data={"bag": "bag"})
    assert [(c.row, c.problem) for c in found.conflicts] == [
        ("s1", 'bags "no" cannot be with what is known of its members')
    ]
