"""Random prompt files, settings and files of directions: each is read right or refused with one sentence.

`FUZZ=500 pytest tests/test_fuzz.py` tries 500 of each (`make faults`).
"""

import csv
import io
import json
import os
import re
import string
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from refusal_utils.directions import DirectionSet
from refusal_utils.model.artifacts import load_rows, load_tensors
from refusal_utils.prompts.categories import ALL_CATEGORIES
from refusal_utils.prompts.files import read_prompt_file
from refusal_utils.workflow.settings import Settings, read_settings

EXAMPLES = int(os.environ.get("FUZZ", "40"))
fuzzed = settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SENTENCE = re.compile(r"\w+(\.\w+)?: .+; got .+[.?]", re.DOTALL)

texts = st.one_of(st.text(max_size=30), st.text(string.printable, min_size=1, max_size=60), st.just("=SUM(A1)"))
rows = st.fixed_dictionaries(
    {"text": texts, "category": st.sampled_from(ALL_CATEGORIES)},
    optional={
        "id": st.text(max_size=6),
        "split": st.sampled_from(["train", "eval", "", "Train", "test"]),
        "pair_id": st.text(max_size=4),
        "language": st.sampled_from(["", "de", "pt-BR", "klingon!"]),
    },
)
tables = st.lists(rows, min_size=1, max_size=6)
# What may happen to a file on its way: nothing, bytes that are changed, inserted or lost, or another encoding.
accidents = st.one_of(
    st.just(lambda content: content),
    st.builds(
        lambda place, own: (
            lambda content: content[: place % (len(content) + 1)] + own + content[place % (len(content) + 1) :]
        ),
        st.integers(0, 500),
        st.binary(min_size=1, max_size=4),
    ),
    st.builds(lambda n: lambda content: content[: len(content) - n], st.integers(1, 40)),
    st.sampled_from(["utf-16", "latin-1", "utf-8-sig"]).map(
        lambda name: lambda content: content.decode().encode(name, errors="replace")
    ),
)


def as_jsonl(table):
    return "\n".join(json.dumps(row) for row in table)


def as_cells(separator):
    def write(table):
        stream = io.StringIO()
        names = sorted({name for row in table for name in row})
        writer = csv.DictWriter(stream, names, delimiter=separator, restval="")
        writer.writeheader()
        writer.writerows(table)
        return stream.getvalue()

    return write


FORMATS = {".jsonl": as_jsonl, ".csv": as_cells(","), ".tsv": as_cells("\t")}


def attempt(call, *arguments):
    """(what the call returns, ""), or (None, the sentence with which it refuses)."""
    try:
        return call(*arguments), ""
    except ValueError as error:
        said = str(error)
    assert SENTENCE.fullmatch(said)
    assert len(said) < 1500
    return None, said


@fuzzed
@given(tables, st.sampled_from(sorted(FORMATS)), accidents)
def test_a_prompt_file_is_read_right_or_refused_with_its_name(tmp_path, table, ending, accident):
    path = tmp_path / f"mine{ending}"
    original = FORMATS[ending](table).encode(errors="surrogatepass")
    content = accident(original)
    path.write_bytes(content)
    found, refusal = attempt(read_prompt_file, path)
    if refusal:
        assert str(path) in refusal
        return
    assert set(found["category"]) <= set(ALL_CATEGORIES)
    assert found["text"].str.strip().ne("").all()
    if content == original:  # nothing is dropped, and nothing is changed but the blanks around a text
        strip = "\ufeff" + string.whitespace
        assert found["text"].tolist() == [row["text"].strip(strip).strip() for row in table]
        assert found["category"].tolist() == [row["category"] for row in table]


@fuzzed
@given(st.binary(max_size=300), st.sampled_from([".jsonl", ".csv", ".tsv", ".txt"]))
def test_random_bytes_are_no_prompt_file_or_a_plain_one(tmp_path, content, ending):
    path = tmp_path / f"mine{ending}"
    path.write_bytes(content)
    found, refusal = attempt(read_prompt_file, path, "advice")
    assert refusal or len(found) <= content.count(b"\n") + content.count(b"\r") + 1


NAMES = [*Settings.model_fields, "NOPE", "model", ""]
values = st.one_of(
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["None", "True", "[1, 2", "{}", "()", "(1,)", "['a']", "quick", "1e400", "-1", "0", "..", "\0"]),
)


@fuzzed
@given(st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=3))
def test_settings_are_taken_or_refused(assignments):
    found, refusal = attempt(read_settings, [f"{name}={value}" for name, value in assignments])
    assert refusal or set(found.given) <= {name for name, _ in assignments} | {"SIZE", "MODEL"}


@fuzzed
@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(0, 2**64 - 1)))
def test_random_files_of_results_are_refused(tmp_path, content, n_header):
    """The length of a safetensors header may claim anything."""
    path = tmp_path / "mine.safetensors"
    path.write_bytes(content if n_header is None else struct.pack("<Q", n_header) + content)
    for load in (DirectionSet.load, load_tensors, load_rows):
        assert attempt(load, path)[1]


@pytest.mark.parametrize(
    "notes", [{}, {"refusal_utils": "{}"}, {"refusal_utils": "[1]"}, {"refusal_utils": '{"names": 3}'}]
)
def test_a_file_of_other_tensors_is_refused(tmp_path, notes):
    import torch

    path = tmp_path / "other.safetensors"
    path.write_bytes(save({"a": torch.ones(3, dtype=torch.int64)}, notes))
    for load in (DirectionSet.load, load_tensors):
        assert attempt(load, path)[1]
