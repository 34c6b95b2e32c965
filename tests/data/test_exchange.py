"""Labelling tools: what is written can be read back as the same evidence, exports in their exact fields are read."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from anygrain.data.error import InputError
from anygrain.data.exchange import TOOLS, Form, Task, read_answers, write_tasks

CHOICES = Form(("modem", 'phone & "fax"', "bill"))
TREE = Form(
    ("modem", "phone", "bill"),
    paths=(("net",), ("net", "modem"), ("net", "phone"), ("office",), ("office", "bill")),
)
TASKS = [
    Task("r7", {"text": "it blinks <b>red</b>"}, 1, "unsure", proposed="modem", path=("net", "modem"), score=0.8),
    Task("r2", {"text": "zu viel, 4.5 €"}, 2, "unsure", proposed="bill", path=("office", "bill"), score=1.0000001),
    Task("r9", {"text": "?"}, 3),
]


def rows(path: Path, tool: str, **how: Any) -> list[tuple[str, ...]]:
    table = read_answers(path, tool, **how)
    columns = [table.strings(c).tolist() for c in ("row", "annotator", "answer")]
    return list(zip(*columns, strict=True))


def saved(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# -- Label Studio ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [CHOICES, TREE])
def test_label_studio_tasks_come_back_with_the_answers(tmp_path: Path, form: Form) -> None:
    tasks, interface = write_tasks(TASKS, form, tmp_path / "tasks.json", "label-studio")
    written = json.loads(tasks.read_text(encoding="utf-8"))
    control = "taxonomy" if form.paths else "choices"
    assert [t["data"]["anygrain_priority"] for t in written] == [1, 2, 3]
    assert "predictions" not in written[2]
    for task in written[:2]:
        (prediction,) = task["predictions"]
        assert 0 <= prediction["score"] <= 1
        (result,) = prediction["result"]
        assert result["type"] == control
        assert isinstance(result["value"][control], list)
        # the tool exports what is accepted unchanged as an annotation
        task["annotations"] = [
            {"completed_by": {"email": "a@b.c", "id": 3}, "result": [result], "was_cancelled": False}
        ]
    found = rows(saved(tmp_path / "export.json", written), "label-studio")
    assert found == [("r7", "a@b.c", "modem"), ("r2", "a@b.c", "bill")]
    page = ElementTree.fromstring(interface.read_text(encoding="utf-8"))
    asked = page.find("Taxonomy" if form.paths else "Choices")
    assert asked is not None
    assert asked.get("name") == result["from_name"]
    assert asked.get("toName") == result["to_name"] == page.find("Text").get("name")  # type: ignore[union-attr]
    names = [c.get("value") for c in asked.iter("Choice")]
    assert names == ([p[-1] for p in form.paths] if form.paths else list(form.choices))


def annotation(who: Any, value: Any, kind: str = "choices", **more: Any) -> dict[str, Any]:
    key = {"choices": "choices", "taxonomy": "taxonomy", "rating": "rating", "pairwise": "selected"}[kind]
    result = [{"from_name": "class", "to_name": "shown", "type": kind, "value": {key: value}}]
    return {"completed_by": who, "result": result, "was_cancelled": False, **more}


def test_label_studio_export(tmp_path: Path) -> None:
    export = [
        {
            "id": 1,
            "data": {"row": "r1", "text": "x"},
            "annotations": [
                annotation(4, ["a"]),
                annotation({"id": 5}, ["b"], ground_truth=True),
                annotation(6, ["c"], was_cancelled=True),
                annotation(7, [["net", "modem"], ["office"]], "taxonomy"),
            ],
            "predictions": [3, 4],
        },
        {"id": 2, "data": {"text": "y"}, "annotations": [annotation(None, 4.0, "rating")]},
        {"id": 3, "data": {"text": "z"}, "annotations": []},
    ]
    path = saved(tmp_path / "e.json", export)
    everything = [("r1", "4", "a"), ("r1", "5", "b"), ("r1", "7", "modem"), ("r1", "7", "office"), ("2", "", "4")]
    assert rows(path, "label-studio") == everything
    assert rows(path, "label-studio", certain=True) == [("r1", "5", "b")]
    assert rows(path, "label-studio", certain=False) == [e for e in everything if e[1] != "5"]
    assert read_answers(path, "label-studio").strings("text").tolist() == ["x", "x", "x", "x", "y"]


def test_label_studio_short_forms(tmp_path: Path) -> None:
    one = {"text": "x", "row": "r1", "id": 1, "class": "a", "annotator": 4, "annotation_id": 9, "lead_time": 2.5}
    several = {"text": "y", "row": "r2", "id": 2, "class": {"choices": ["a", "b"]}, "annotator": 4, "annotation_id": 10}
    path = saved(tmp_path / "e.json", [one, several])
    assert rows(path, "label-studio") == [("r1", "4", "a"), ("r2", "4", "a"), ("r2", "4", "b")]
    header = "annotator,class,id,row,text,annotation_id,created_at,updated_at,lead_time"
    text = header + '\n4,a,1,r1,x,9,,,\n5,"{""choices"": [""a"", ""b""]}",2,r2,y,10,,,\n'
    path = saved(tmp_path / "e.csv", text)
    assert rows(path, "label-studio", question="class") == [("r1", "4", "a"), ("r2", "5", "a"), ("r2", "5", "b")]
    with pytest.raises(InputError, match=r'answers to 2 questions\. Say which: question = one of "class", "text"'):
        read_answers(path, "label-studio")


# -- Argilla --------------------------------------------------------------------------------------------------------


def test_argilla_records_come_back(tmp_path: Path) -> None:
    (path,) = write_tasks(TASKS, CHOICES, tmp_path / "records.json", "argilla")
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written[0]["suggestions"] == {"class": {"value": "modem", "score": 0.8, "agent": "anygrain"}}
    assert written[1]["metadata"]["anygrain_priority"] == 2
    assert written[2]["suggestions"] == {}
    for record in written[:2]:
        record["responses"] = {"class": [{"value": record["suggestions"]["class"]["value"], "user_id": "u1"}]}
    assert rows(saved(tmp_path / "e.json", written), "argilla") == [("r7", "u1", "modem"), ("r2", "u1", "bill")]


def test_argilla_flat_keeps_what_was_submitted(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    flat = {
        "id": ["r1", "r2", "r3"],
        "text": ["x", "y", "z"],
        "class.responses": [["a", "b"], ["c"], None],
        "class.responses.users": [["u1", "u2"], ["u1"], None],
        "class.responses.status": [["submitted", "draft"], ["submitted"], None],
        "class.suggestion": ["a", "a", "a"],
    }
    parquet.write_table(pa.table(flat), tmp_path / "e.parquet")
    assert rows(tmp_path / "e.parquet", "argilla") == [("r1", "u1", "a"), ("r2", "u1", "c")]
    flat["class.responses.users"][0] = ["u1"]  # type: ignore[index]
    parquet.write_table(pa.table(flat), tmp_path / "e.parquet")
    with pytest.raises(InputError, match="record 1: class has 2 responses, 1 users"):
        read_answers(tmp_path / "e.parquet", "argilla")


# -- doccano --------------------------------------------------------------------------------------------------------


def test_doccano_rows_come_back(tmp_path: Path) -> None:
    (path,) = write_tasks(TASKS, CHOICES, tmp_path / "anna.jsonl", "doccano")
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[0]) == {
        "text": "it blinks <b>red</b>",
        "label": ["modem"],
        "row": "r7",
        "anygrain_priority": 1,
        "anygrain_reason": "unsure",
        "anygrain_question": "class",
    }
    assert rows(path, "doccano") == [("r7", "anna", "modem"), ("r2", "anna", "bill")]


def test_doccano_zip_names_annotators(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("anna.jsonl", '{"id": 5, "text": "x", "label": ["a"], "Comments": []}\n')
        archive.writestr("bob.jsonl", '{"id": 5, "text": "x", "label": []}\n{"id": 6, "text": "y", "label": ["b"]}\n')
    assert rows(tmp_path / "e.zip", "doccano") == [("5", "anna", "a"), ("6", "bob", "b")]
    path = saved(tmp_path / "all.csv", "id,text,label\n5,x,a#b\n6,y,\n")
    assert rows(path, "doccano") == [("5", "", "a"), ("5", "", "b")]


# -- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "name", "content", "message"),
    [
        ("label-studio", "e.json", "[{", "e.json is not JSON: .* in line 1, column 3"),
        ("label-studio", "e.json", {"a": 1}, "no Label Studio export. Expected a JSON list"),
        ("label-studio", "e.json", [{"data": {"text": "x"}}], 'e.json, task 1 has no "row" and no id of its own'),
        ("label-studio", "e.json", [{"id": 1, "data": {}, "annotations": []}], "no answer. Expected an export"),
        ("label-studio", "e.csv", "text,class\nx,a\n", 'record 1 has no "id" and "annotator"'),
        ("argilla", "e.json", [{"a": 1}], "no Argilla data set"),
        ("doccano", "e.jsonl", '{"id": 1, "label": ["a"]}\n{"id": ', "e.jsonl, line 2 is not JSON"),
        ("doccano", "e.jsonl", '{"id": 1, "label": [[0, 4, "PER"]]}\n', "marks spans of text"),
        ("doccano", "e.zip", "no zip", "e.zip cannot be read as a zip"),
    ],
)
def test_what_is_no_export_is_refused(tmp_path: Path, tool: str, name: str, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as found:
        read_answers(saved(tmp_path / name, content), tool)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(("tool", "name"), [("label-studio", "e.csv"), ("doccano", "e.jsonl"), ("argilla", "e.json")])
def test_files_in_another_encoding_are_named(tmp_path: Path, tool: str, name: str) -> None:
    (tmp_path / name).write_bytes('{"text": "é"}'.encode("cp1252"))
    with pytest.raises(InputError, match=f"{name} is not UTF-8; it looks like Windows-1252"):
        read_answers(tmp_path / name, tool)


def test_pairwise_answers_are_checked(tmp_path: Path) -> None:
    task = {"id": 1, "data": {}, "annotations": [annotation(1, "left", "pairwise")]}
    assert rows(saved(tmp_path / "e.json", [task]), "label-studio") == [("1", "1", "left")]
    task["annotations"] = [annotation(1, "upper", "pairwise")]
    with pytest.raises(InputError, match='a pairwise answer is "upper"'):
        read_answers(saved(tmp_path / "e.json", [task]), "label-studio")


def test_unknown_names(tmp_path: Path) -> None:
    path = saved(tmp_path / "e.jsonl", '{"id": 1, "label": ["a"]}\n')
    with pytest.raises(InputError, match='Did you mean "doccano"'):
        read_answers(path, "docano")
    with pytest.raises(InputError, match="There is no file"):
        read_answers(tmp_path / "f.jsonl", "doccano")
    with pytest.raises(InputError, match='no answers to "clas"'):
        read_answers(path, "doccano", question="clas")
    assert set(TOOLS) == {"label-studio", "argilla", "doccano"}
