"""Two models never share a folder, a report or a cached file, whatever their names have in common."""

import json

import pytest

from refusal_utils.model.names import cache_key, claim_folder, full_name, model_folder, owner, short_name
from refusal_utils.study import open_study


def folder_of_model(path):
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return str(path)


def test_models_of_one_last_name_get_folders_of_their_own_in_any_order(tmp_path):
    local = [folder_of_model(tmp_path / version / "chatty") for version in ("v1", "v2")]
    models = ["google/chatty", "meta/chatty", "me/x-GGUF:chatty.gguf", *local, "x/google--chatty", "google/Chatty"]
    root = tmp_path / "figures"
    claimed = {model: claim_folder(model, root) for model in models}
    assert claimed["google/chatty"] == root / "chatty"
    assert claimed["meta/chatty"] == root / "meta--chatty"
    assert len(set(claimed.values())) == len(models)
    assert {model: model_folder(model, root) for model in models} == claimed
    assert {model: owner(folder) for model, folder in claimed.items()} == {model: full_name(model) for model in models}
    (root / "chatty" / "model.json").unlink()  # a free short name does not part a model from its figures
    assert model_folder("meta/chatty", root) == root / "meta--chatty"


def test_our_own_names_belong_to_our_own_models(tmp_path):
    for name in ("bundled", "bundled-tokens", "smollm2"):
        assert model_folder(f"x/{name}", tmp_path) == tmp_path / f"x--{name}"
        assert claim_folder(name, tmp_path) == tmp_path / name
        assert not (tmp_path / name / "model.json").exists()


def test_a_folder_whose_record_is_damaged_is_nobodys(tmp_path):
    claim_folder("google/chatty", tmp_path)
    for text in ("", "{", "[]", json.dumps({"name": "google/chatty"})):
        (tmp_path / "chatty" / "model.json").write_text(text)
        assert model_folder("google/chatty", tmp_path) == tmp_path / "google--chatty"


def test_a_folder_from_before_there_were_records_belongs_to_the_model_of_its_map(tmp_path):
    (tmp_path / "chatty").mkdir()
    assert model_folder("meta/chatty", tmp_path) == tmp_path / "chatty"  # nothing says whose it is
    (tmp_path / "chatty" / "03_map.csv").write_text("name,model\na,google/chatty\n")
    assert model_folder("google/chatty", tmp_path) == tmp_path / "chatty"
    assert model_folder("meta/chatty", tmp_path) == tmp_path / "meta--chatty"


def test_cached_rows_are_named_by_the_whole_name(tmp_path):
    files = {
        open_study(model, figures_dir=tmp_path / model, cache_dir=tmp_path).cache_file("07_sweep")
        for model in ("google/chatty", "meta/chatty")
    }
    assert len(files) == 2
    assert open_study("bundled", cache_dir=tmp_path).cache_file("07_sweep") == tmp_path / "07_sweep_bundled.jsonl.gz"
    assert cache_key("google/chatty") == cache_key("google/chatty")


def test_a_path_is_the_same_model_however_it_is_written(tmp_path, monkeypatch):
    model = folder_of_model(tmp_path / "models" / "chatty")
    monkeypatch.chdir(tmp_path)
    assert {full_name(name) for name in (model, "models/chatty", "./models/chatty", f"{model}/")} == {model}
    assert short_name("models/chatty/") == "chatty"
    assert full_name("google/chatty") == "google/chatty"


def test_figures_need_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="^claim_folder: the folder of figures must be writable; got .*file"):
        claim_folder("google/chatty", tmp_path / "file")
    (tmp_path / "chatty").write_text("")
    assert claim_folder("google/chatty", tmp_path) == tmp_path / "google--chatty"
