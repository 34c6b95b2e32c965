"""Labels of whole bags, read from tables: what they become, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from anygrain.data.config import parse_config, with_paths
from anygrain.data.dataset import read_dataset
from anygrain.data.error import InputError
from anygrain.labels import Aggregate, AtLeast, AtMost, Automaton, Bags, Between, Majority, SetLabel, Taxonomy

NAMES = ("modem", "phone", "router")
TAXONOMY = "product,department\nmodem,network\nphone,voice\nrouter,network\n"
ROWS = "id,x,bag\na,1,s1\nb,2,s2\nc,3,s1\nd,4,\ne,5,s2\n"
BAGS = Bags.from_ids(torch.tensor([0, 1, 0, -1, 1]))
WAYS = "state,class,next\n" + "".join(f"even,{n},odd\nodd,{n},even\n" for n in NAMES)
COINS = "state,class,next,probability\n" + "".join(f"s,{n},s,0.5\ns,{n},t,0.5\nt,{n},t,1\n" for n in NAMES)


def read(folder: Path, bags: str, label: dict[str, Any], rows: str = ROWS, **files: str) -> Any:
    for name, text in {"rows": rows, "bags": bags, "taxonomy": TAXONOMY, **files}.items():
        (folder / f"{name}.csv").write_text(text)
    classes = [] if label.get("taxonomy") else list(NAMES)
    data = {"source": "rows.csv", "id": "id", "columns": ["x"], "bag": "bag"}
    raw = {"classes": classes, "data": data, "labels": [label if rows != ROWS else {"source": "bags.csv", **label}]}
    found = read_dataset(with_paths(parse_config(raw), folder))
    assert len(found.evidence) == 1
    return found.evidence[0]


def same(found: Any, wanted: Any) -> None:
    assert type(found) is type(wanted)
    log_probs = torch.randn(wanted.n_instances, wanted.n_classes, dtype=torch.float64).log_softmax(1)
    for one, two in zip(found.infer(log_probs), wanted.infer(log_probs), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def test_ranges(tmp_path: Path) -> None:
    bags = "bag,few,many\ns1,1,2\ns2,,1\n"
    target = ["phone", "router"]
    found = read(tmp_path, bags, {"kind": "AtLeast", "column": "few", "target": target})
    same(found.labels, AtLeast(BAGS, torch.tensor([1, -1]), [1, 2], 3))
    assert found.n_labels == 1
    found = read(tmp_path, bags, {"kind": "AtMost", "column": "many", "target": "modem", "error": 0.1})
    same(found.labels, AtMost(BAGS, torch.tensor([2, 1]), 0, 3, error=0.1))
    found = read(tmp_path, bags, {"kind": "Between", "low": "few", "high": "many", "target": target})
    same(found.labels, Between(BAGS, torch.tensor([1, -1]), torch.tensor([2, 1]), [1, 2], 3))
    assert found.record_value.tolist() == ["1..2", "..1"]


def test_a_constant_column_of_the_data_speaks_of_bags(tmp_path: Path) -> None:
    rows = "id,x,bag,won\na,1,s1,phone\nb,2,s2,\nc,3,s1,phone\nd,4,,\ne,5,s2,\n"
    found = read(tmp_path, "bag\n", {"kind": "Majority", "column": "won"}, rows)
    same(found.labels, Majority(BAGS, torch.tensor([1, -1]), 3))
    with pytest.raises(InputError, match="different values"):
        read(tmp_path, "bag\n", {"kind": "Majority", "column": "won"}, rows.replace("c,3,s1,phone", "c,3,s1,modem"))


def test_rules(tmp_path: Path) -> None:
    bags = "bag,best,kinds,part\ns1,router,2,voice\ns2,phone,1,network\n"
    found = read(tmp_path, bags, {"kind": "SetLabel", "column": "best", "rule": "highest"})
    same(found.labels, SetLabel(BAGS, torch.tensor([2, 1]), 3, "highest"))
    found = read(tmp_path, bags, {"kind": "SetLabel", "column": "kinds", "rule": "distinct"})
    same(found.labels, SetLabel(BAGS, torch.tensor([2, 1]), 3, "distinct"))
    found = read(tmp_path, bags, {"kind": "SetLabel", "column": "part", "taxonomy": "taxonomy.csv"})
    taxonomy = Taxonomy.from_csv(tmp_path / "taxonomy.csv")
    names = taxonomy.nodes(1)
    wanted = torch.tensor([names.index("voice"), names.index("network")])
    same(found.labels, SetLabel(BAGS, wanted, 3, taxonomy=taxonomy))


def test_automata(tmp_path: Path) -> None:
    label = {"kind": "Automaton", "column": "end", "transition": "ways.csv", "initial": "even"}
    found = read(tmp_path, "bag,end\ns1,even\ns2,\n", label, ways=WAYS)
    parity = torch.tensor([[1] * 3, [0] * 3])
    same(found.labels, Automaton(BAGS, torch.tensor([0, -1]), parity, 0, 3))
    label = {**label, "initial": "s", "final": {"no": ["s"], "yes": ["t"]}}
    found = read(tmp_path, "bag,end\ns1,yes\ns2,no\n", label, ways=COINS)
    same(found.labels, Automaton(BAGS, torch.tensor([1, 0]), torch.tensor([[[0.5, 0.5]] * 3, [[0.0, 1.0]] * 3]), 0, 3))


def test_sums(tmp_path: Path) -> None:
    label = {"kind": "Aggregate", "column": "paid", "values": {"router": 2.5, "modem": 1, "phone": 0}}
    found = read(tmp_path, "bag,paid\ns1,3.5\ns2,\n", label)
    same(found.labels, Aggregate(BAGS, torch.tensor([3.5, torch.nan]), torch.tensor([1, 0, 2.5])))
    found = read(tmp_path, "bag,paid\ns1,1.2\ns2,0.4\n", {**label, "how": "mean", "noise": 0.3})
    same(
        found.labels,
        Aggregate(BAGS, torch.tensor([1.2, 0.4], dtype=torch.float64), torch.tensor([1, 0, 2.5]), "mean", 0.3),
    )


AT_LEAST = {"kind": "AtLeast", "column": "n", "target": "phone"}
BETWEEN = {"kind": "Between", "low": "a", "high": "b", "target": "phone"}
AUTOMATON = {"kind": "Automaton", "column": "end", "transition": "ways.csv"}
AGGREGATE = {"kind": "Aggregate", "column": "paid", "values": {"modem": 1, "phone": 2, "router": 3}}


@pytest.mark.parametrize(
    ("bags", "label", "ways", "message"),
    [
        ("bag,n\ns1,3\n", AT_LEAST, "", 'bags.csv, bag "s1": "n" is 3, but 2 rows of rows.csv belong to it'),
        ("bag,n\ns1,1.5\n", AT_LEAST, "", 'bag "s1": "n" holds 1.5. Expected a number of rows, a whole number'),
        ("bag,n\ns1,some\n", AT_LEAST, "", '"n" holds "some". Expected a number, or nothing'),
        ("bag,a,b\ns1,2,1\n", BETWEEN, "", 'bag "s1": from 2 to 1 rows. Expected "a" to be the lower number'),
        ("bag,n\ns1,1\n", {"kind": "Between", "target": "phone"}, "", "name no column"),
        ("bag,n\ns1,fax\n", {"kind": "Majority", "column": "n"}, "", 'is not in the setting classes: "fax"'),
        ("bag,n\ns1,3\n", {"kind": "SetLabel", "column": "n", "rule": "distinct"}, "", "number of different classes"),
        ("bag,end\ns1,odd\n", AUTOMATON, WAYS.replace("class", "word"), 'ways.csv has no column "class"'),
        ("bag,end\ns1,odd\n", AUTOMATON, WAYS.replace("odd,phone,even\n", ""), 'state "odd" has for class "phone" no'),
        ("bag,end\ns1,s\n", AUTOMATON, COINS.replace("t,0.5", "t,0.4"), "probabilities sum to 0.9"),
        ("bag,end\ns1,old\n", AUTOMATON, WAYS, '"end" holds "old". Expected "even", "odd"'),
        ("bag,end\ns1,odd\n", {**AUTOMATON, "initial": "evn"}, WAYS, 'is "evn", which is no state of ways.csv'),
        ("bag,paid\ns1,7\n", AGGREGATE, "", 'bag "s1": the sum 7 lies outside of what its 2 rows'),
        ("bag,paid\ns1,2.5\n", AGGREGATE, "", "which is between what its members can come to"),
        ("bag,paid\ns1,2\n", {**AGGREGATE, "values": {"modem": 1, "phone": 2}}, "", '"router" has no value'),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    tmp_path: Path, bags: str, label: dict[str, Any], ways: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, bags, label, ways=ways or WAYS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
