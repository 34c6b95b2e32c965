"""Tasks for Label Studio with pre-annotations, and its exports read back.

Written: a list of tasks, in the order to label, one prediction each, and `data.anygrain_priority`, `_reason` and
`_question`, by which the free edition can sort. Read: the JSON export, its short form (JSON_MIN) and CSV.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from anygrain.data.error import InputError, quoted
from anygrain.data.exchange.reading import PRIORITY, QUESTION, REASON, ROW, as_text, read_json, read_text, row_of
from anygrain.data.exchange.task import Answers, Form, Task

MODEL = "anygrain"
SHOWN = "shown"  # name of the object tag that a prediction points to
#: key in the value of a result, by type of control
VALUES = {"choices": "choices", "taxonomy": "taxonomy", "rating": "rating", "number": "number", "pairwise": "selected"}


def write(tasks: Sequence[Task], form: Form) -> list[str]:
    """The tasks as JSON, and the labelling interface that fits them."""
    return [json.dumps([_task(t, form) for t in tasks], ensure_ascii=False, indent=1), interface(tasks, form)]


def _task(task: Task, form: Form) -> dict[str, Any]:
    data = {**task.fields, ROW: task.row, PRIORITY: task.priority, REASON: task.reason, QUESTION: task.question}
    out: dict[str, Any] = {"data": data}
    if task.proposed or task.several:
        kind, value = _proposal(task, form)
        result = {"id": f"p{task.priority}", "from_name": form.name, "to_name": SHOWN, "type": kind}
        score = min(max(float(task.score), 0.0), 1.0)
        out["predictions"] = [{"model_version": MODEL, "score": score, "result": [{**result, "value": {kind: value}}]}]
    return out


def _proposal(task: Task, form: Form) -> tuple[str, Any]:
    """Type of the control, and what stands under its key in a value."""
    if form.answer == "number":
        return "number", float(task.proposed)
    if form.answer == "rating":
        return "rating", round(float(task.proposed))
    if form.paths:
        return "taxonomy", [list(task.path)]
    return "choices", list(task.several) if form.answer == "several" else [task.proposed]


def interface(tasks: Sequence[Task], form: Form) -> str:
    """The labelling interface that fits the tasks, to be pasted into a project's settings (XML)."""
    seen = list(tasks[0].fields) if tasks else []
    lines = ["<View>"]
    for at, name in enumerate(seen):
        tag = "Image" if name == form.image else "Text"
        shown = SHOWN if at == 0 else f"{SHOWN}_{at}"
        lines.append(f"  <{tag} name={quoteattr(shown)} value={quoteattr('$' + name)}/>")
    if form.answer in ("number", "rating"):
        tag, more = ("Number", "") if form.answer == "number" else ("Rating", f' maxRating="{form.highest}"')
        lines.append(f"  <{tag} name={quoteattr(form.name)} toName={quoteattr(SHOWN)}{more}/>")
    elif form.paths:
        lines.append(f"  <Taxonomy name={quoteattr(form.name)} toName={quoteattr(SHOWN)}>")
        lines += _nested(form.paths)
        lines.append("  </Taxonomy>")
    else:
        several = ' choice="multiple"' if form.answer == "several" else ""
        lines.append(f"  <Choices name={quoteattr(form.name)} toName={quoteattr(SHOWN)}{several}>")
        lines += [f"    <Choice value={quoteattr(c)}/>" for c in form.choices]
        lines.append("  </Choices>")
    return "\n".join([*lines, "</View>", ""])


def _nested(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """Choices inside choices, one per node, parents first."""
    tree: dict[str, Any] = {}
    for path in paths:
        at = tree
        for name in path:
            at = at.setdefault(name, {})
    lines: list[str] = []

    def walk(level: dict[str, Any], depth: int) -> None:
        pad = "  " * depth
        for name, below in level.items():
            if below:
                lines.append(f"{pad}<Choice value={quoteattr(name)}>")
                walk(below, depth + 1)
                lines.append(f"{pad}</Choice>")
            else:
                lines.append(f"{pad}<Choice value={quoteattr(name)}/>")

    walk(tree, 2)
    return lines


def read(path: Path, key: str = ROW) -> Answers:
    """Answers of an export.

    A skipped task (`was_cancelled`) is no answer; `ground_truth` makes an answer certain. Of a taxonomy the last node
    of the path is the answer, at whatever depth it stops.

    Args:
        path: .json (the full or the short form) or .csv.
        key: field of the task's data that holds the row id; the tool's own id where it is not there.

    Raises:
        InputError: not such an export, with the first task that is not.
    """
    if path.suffix.lower() == ".csv":
        file = io.StringIO(read_text(path), newline="")
        rows = [{k: _cell(v) for k, v in row.items()} for row in csv.DictReader(file)]
        return _short(rows, path.name, key, in_order=False)
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(t, dict) for t in tasks):
        raise InputError(f"{path.name} is no Label Studio export. Expected a JSON list of tasks")
    if tasks and not any("data" in t for t in tasks):
        return _short(tasks, path.name, key, in_order=True)
    out = Answers()
    for at, task in enumerate(tasks):
        where = f"{path.name}, task {at + 1}"
        data = task.get("data")
        if not isinstance(data, dict):
            raise InputError(f"{where} has no data. Expected the JSON export of Label Studio")
        row = row_of(data, key, task.get("id"), where)
        for annotation in task.get("annotations") or task.get("completions") or []:
            if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
                continue
            who = _annotator(annotation.get("completed_by"))
            certain = bool(annotation.get("ground_truth"))
            if not annotation.get("result"):
                out.add(row, who, "", "", data, certain)
            for result in annotation.get("result") or []:
                kind = result.get("type", "")
                if kind not in VALUES:
                    continue
                value = (result.get("value") or {}).get(VALUES[kind])
                for answer in _answers(value, where, kind):
                    out.add(row, who, as_text(result.get("from_name", "")), answer, data, certain)
    return out


def _annotator(who: Any) -> str:
    """An annotator is a number, or an object with an e-mail address or a number."""
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    return "" if who is None else as_text(who)


def _answers(value: Any, where: str, kind: str) -> list[str]:
    """What was chosen: a list of names, of paths, or one value."""
    if value is None:
        return []
    if kind == "pairwise" and value not in ("left", "right"):
        raise InputError(f'{where}: a pairwise answer is {quoted(value)}. Expected "left" or "right"')
    found = value if isinstance(value, list) else [value]
    return [as_text(v[-1]) if isinstance(v, list) and v else as_text(v) for v in found]


#: columns of the short form that are no answers
_OF_THE_TOOL = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")
_OURS = (ROW, PRIORITY, REASON, QUESTION)


def _short(rows: list[dict[str, Any]], name: str, key: str, *, in_order: bool) -> Answers:
    """The short form: a record per annotation, one column per control.

    Args:
        in_order: whether the columns stand as the tool puts them, data fields, then `id`, then controls (JSON). In a
            CSV they stand in any order, so every column that may be a control counts as a question of its own.
    """
    out = Answers()
    for at, record in enumerate(rows):
        where = f"{name}, record {at + 1}"
        names = list(record)
        if "id" not in names or "annotator" not in names:
            raise InputError(f'{where} has no "id" and "annotator". Expected an export of Label Studio')
        after = names.index("id") + 1 if in_order else 0
        controls = [k for k in names[after:] if k not in (*_OF_THE_TOOL, *_OURS, key)]
        row = row_of(record, key, record["id"], where)
        data = {k: v for k, v in record.items() if k not in (*_OF_THE_TOOL, *(controls if in_order else ()))}
        for control in controls:
            value = record[control]
            if isinstance(value, dict):
                value = value.get("choices") or value.get("taxonomy")
            if value in (None, ""):
                continue
            for answer in _answers(value, where, "choices"):
                out.add(row, _annotator(record["annotator"]), control, answer, data)
    return out


def _cell(value: Any) -> Any:
    """A CSV cell: several choices and paths are JSON inside it."""
    if isinstance(value, str) and value[:1] in "[{":
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value
