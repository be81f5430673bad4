import pytest

from refusal_utils.workflow.settings import Settings, are_default, describe_settings, read_settings


def test_values_are_read_as_python_or_as_text():
    found = read_settings(
        ["GAPS=[0.5, 1]", "LAYER=None", "EXAMPLE=advice", "SYSTEM_PROMPT=a=b"], MODEL="a/m", PROMPTS=None
    )
    assert found.given == {
        "MODEL": "a/m",
        "SYSTEM_PROMPT": "a=b",
        "LAYER": None,
        "GAPS": [0.5, 1.0],
        "EXAMPLE": "advice",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SEED", "a setting must read NAME=VALUE; got 'SEED'"),
        ("SIZE=quick", "SIZE must be set by its own option; .*Use --size"),
        ("GAPS=many", "GAPS: .*; got 'many'"),
        ("MODEL=bundled", "MODEL must be set by its own option; .*Use --model"),
        ("LAYRE=20", "the parameter must be one of MODEL, .*; got LAYRE"),
        ("LAYER=deep", "LAYER: .*integer.*; got 'deep'"),
        ("N_PROMPTS=0", "N_PROMPTS: .*greater than or equal to 1; got 0"),
        ("DTYPE=float8", "DTYPE: .*'float16'; got 'float8'"),
        ("n_prompts=3", r"the parameter must be one of .*; got n_prompts. Did you mean 'N_PROMPTS'\?"),
        ("N_PROMPTS=", "N_PROMPTS: must not be empty; got ''"),
        ("SYSTEM_PROMPT= ", "SYSTEM_PROMPT: must not be empty; got ' '"),
        ("N_PROMPTS=True", "N_PROMPTS: must not be True or False; got True"),
        ("N_PROMPTS=None", "N_PROMPTS: .*integer; got None"),
        ("N_PROMPTS=2.5", "N_PROMPTS: .*integer.*; got 2.5"),
        ("N_PROMPTS=many", "N_PROMPTS: .*integer.*; got 'many'"),
        ("SEED=-1", "SEED: .*greater than or equal to 0; got -1"),
        ("LAYER=-1", "LAYER: must be 0 or more; got -1"),
        ("POS=1", "POS: must be negative.*; got 1"),
        ("TARGET=1.5", "TARGET: .*less than or equal to 1; got 1.5"),
        ("MAX_ORR=-0.1", "MAX_ORR: .*greater than or equal to 0; got -0.1"),
        ("GAPS=()", "GAPS: must be numbers, at least one; got ()"),
        ("GAPS=0.5", "GAPS: .*list.*; got 0.5"),
        ("ALPHAS=['a']", "ALPHAS: must be numbers, at least one; got .'a'."),
        ("ALPHAS=[True]", "ALPHAS: must be numbers, at least one; got .True."),
        ("ALPHAS={'a': 1}", "ALPHAS: .*list; got .'a': 1."),
        ("GAPS=fw", r"GAPS: .*; got 'fw'. Did you mean 'few'\?"),
        ("EXAMPLE=advise", r"EXAMPLE: must be one of .*; got 'advise'. Did you mean 'advice'\?"),
        ("JUDGE=phrase", r"JUDGE: must be one of .*; got 'phrase'. Did you mean 'phrases'\?"),
        ("SELECT_BY=behavior", r"SELECT_BY: .*; got 'behavior'. Did you mean 'behaviour'\?"),
        ("DTYPE=bfloat", r"DTYPE: .*; got 'bfloat'. Did you mean 'bfloat16'\?"),
        ("PROMPTS=bultin", r"PROMPTS: .*; got 'bultin'. Did you mean 'builtin'\?"),
        ("LANGUAGES=paper", "LANGUAGES: must be 'builtin', a folder of files or a .jsonl or .csv or .tsv file"),
        (
            "PROMPTS=papre",
            "PROMPTS: must be 'builtin', 'paper', a folder .* or a .jsonl or .csv or .tsv file; got 'papre'",
        ),
    ],
)
def test_a_wrong_assignment_is_refused(text, message):
    with pytest.raises(ValueError, match=f"^read_settings: {message}"):
        read_settings([text])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("GAPS=(0.25, 0.5)", [0.25, 0.5]),
        ("GAPS={0.5, 0.25}", [0.25, 0.5]),
        ("GAPS=[1]", [1.0]),
        ("N_PROMPTS='32'", 32),
        ("N_PROMPTS=32.0", 32),
        ("LAYER='7'", 7),
        ("MARGIN=1e-2", 0.01),
        ("SHOW_PROMPTS=yes", True),
    ],
)
def test_a_value_of_another_form_is_converted_if_it_can_only_mean_one_thing(text, value, monkeypatch):
    name, _, given = text.partition("=")
    assert read_settings([text]).given == {name: value}
    monkeypatch.setenv(f"REFUSAL_{name}", given)
    assert Settings().given == {name: value}


def test_a_misspelled_environment_variable_is_refused(monkeypatch):
    monkeypatch.setenv("REFUSAL_LAYRE", "3")
    with pytest.raises(ValueError, match=r"^read_settings: .*got LAYRE. Did you mean 'LAYER'\?"):
        read_settings()


def test_the_layer_may_be_chosen_by_effect():
    assert read_settings(["LAYER=causal"]).LAYER == "causal"
    assert read_settings(["LAYER=20"]).LAYER == 20


def test_environment_variables_set_what_arguments_do_not(monkeypatch):
    monkeypatch.setenv("REFUSAL_N_PROMPTS", "7")
    monkeypatch.setenv("REFUSAL_SEED", "3")
    assert Settings(SEED=4).given == {"SEED": 4, "N_PROMPTS": 7}
    monkeypatch.setenv("REFUSAL_SEED", "three")
    with pytest.raises(ValueError, match="^read_settings: SEED: .*got 'three'"):
        read_settings()


def test_paths_become_absolute_and_hub_ids_do_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine.csv").write_text("")
    absolute = (tmp_path / "mine").as_posix()
    assert read_settings(MODEL="./mine", PROMPTS="mine").given == {"MODEL": absolute, "PROMPTS": absolute}
    assert read_settings(PROMPTS="mine.csv").given == {"PROMPTS": f"{absolute}.csv"}
    assert read_settings(MODEL="org/mine", PROMPTS="paper").given == {"MODEL": "org/mine", "PROMPTS": "paper"}
    assert read_settings(MODEL="mine").given == {"MODEL": "mine"}
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert read_settings(MODEL="mine").given == {"MODEL": absolute}
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    assert read_settings(MODEL="mine.gguf").given == {"MODEL": f"{absolute}.gguf"}
    on_hub = "org/mine-GGUF:mine.gguf"
    assert read_settings(MODEL=on_hub).given == {"MODEL": on_hub}
    with pytest.raises(ValueError, match="must be 'builtin'"):
        read_settings(PROMPTS="mine.csv.gz")


def test_every_setting_is_described_in_a_sentence():
    lines = describe_settings().partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == list(Settings.model_fields)
    assert all(field.description.endswith(".") for field in Settings.model_fields.values())


def test_parameters_are_default_unless_one_that_changes_numbers_is_changed():
    known = {name: field.default for name, field in Settings.model_fields.items()}
    assert are_default(known)
    assert are_default({"SEED": 0, "other": 1, "FIGURES_DIR": "x", "MODEL": "y"})
    for name, value in {"SEED": 1, "LAYER": 2, "GAPS": [1.0], "JUDGE": "self", "N_BOOTSTRAP": 2000}.items():
        assert not are_default(known | {name: value})
