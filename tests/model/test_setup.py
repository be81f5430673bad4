"""Options of loading are checked before anything is read. Signatures are unwrapped, because tests check their types."""

import inspect
from pathlib import Path

import numpy as np
import pytest

from refusal_utils.model.loading import check_device
from refusal_utils.model.setup import check_types, read_setup
from refusal_utils.model.sources import find_source

WRONG = [
    ("system_prompt", 3, "a text or None"),
    ("system_prompt", b"Be brief.", "a text or None"),
    ("system_prompt", ["Be brief."], "a text or None"),
    ("layer", "6", "a whole number or None"),
    ("layer", 2.5, "a whole number or None"),
    ("layer", True, "a whole number or None"),
    ("pos", [-1], "a whole number or None"),
]


@pytest.mark.parametrize(("option", "value", "must"), WRONG)
def test_an_option_of_another_type_is_named_before_anything_is_read(option, value, must):
    options = dict.fromkeys(("layer", "pos", "system_prompt")) | {option: value}
    with pytest.raises(ValueError, match=f"^load_chat_model: {option} must be {must}; got "):
        inspect.unwrap(read_setup)("bundled", Path("nowhere"), None, **options)


def test_whole_numbers_of_numpy_are_whole_numbers():
    check_types("load_chat_model", {"layer": np.int64(3), "pos": np.int32(-1), "system_prompt": "Be brief."})


def test_a_study_may_choose_its_layer_but_a_model_may_not():
    check_types("open_study", {"layer": "causal"}, choices=("causal", "select"))
    with pytest.raises(ValueError, match=r"^open_study: layer must be one of causal, select; .* Did you mean 'select'"):
        check_types("open_study", {"layer": "Select!"}, choices=("causal", "select"))
    with pytest.raises(ValueError, match="^load_chat_model: layer must be a whole number or None; got 'causal'"):
        check_types("load_chat_model", {"layer": "causal"})


@pytest.mark.parametrize("name", [3, None, True, b"bundled", ["bundled"]])
def test_a_model_that_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="^load_chat_model: name must be a text or a path; got "):
        inspect.unwrap(find_source)(name)


@pytest.mark.parametrize("device", [True, ["cpu"]])
def test_a_device_of_another_type_is_refused(device):
    with pytest.raises(ValueError, match="^load_chat_model: the device must be available; got "):
        inspect.unwrap(check_device)(device)
