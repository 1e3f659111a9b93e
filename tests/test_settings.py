"""Settings: their order, their origins, and the sentences for what cannot be used."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from clvp_cli.errors import ConfigError
from clvp_cli.settings import (
    BOUNDS,
    DEFAULT_SEED,
    Layer,
    Settings,
    environment_layer,
    field_types,
    file_layer,
    find_config,
    flatten,
    load_settings,
    resolve,
    shipped_configs,
)


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither variables nor a user's file, and a directory of one's own."""
    import os

    for name in [name for name in os.environ if name.startswith("CLVP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLVP_USER_CONFIG", str(tmp_path / "user.yaml"))
    monkeypatch.chdir(tmp_path)


def test_defaults_are_those_of_the_command_line_page() -> None:
    """Nothing said: 16 candidates, 0.8, 0.8, 50, 2.0, at most 500 codes, each candidate at its own length."""
    settings = load_settings().settings
    drawn = settings.sampling
    assert (drawn.n, drawn.temperature, drawn.top_p, drawn.top_k) == (16, 0.8, 0.8, 50)
    assert (drawn.repetition_penalty, drawn.min_codes, drawn.max_codes) == (2.0, 0, 500)
    assert (settings.model, settings.seed, settings.scoring.pad) == ("mini", DEFAULT_SEED, "own")


def test_the_default_profile_says_what_the_defaults_are() -> None:
    """configs/default.yaml repeats the defaults and changes none."""
    assert load_settings(["default"]).settings == Settings()


def test_flags_win_over_environment_over_config_over_user_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer overrides those below it, and every value remembers where it came from."""
    names = ("sampling.n", "sampling.top_k", "sampling.top_p", "sampling.temperature", "seed")
    (tmp_path / "user.yaml").write_text("seed: 1\nsampling: {n: 1, top_k: 1, top_p: 0.1, temperature: 1.1}\n")
    (tmp_path / "first.yaml").write_text("sampling: {n: 2, top_k: 2, top_p: 0.2}\n")
    (tmp_path / "second.yaml").write_text("sampling: {n: 3, top_k: 3}\n")
    monkeypatch.setenv("CLVP_SAMPLING_N", "4")
    resolved = load_settings(["first.yaml", "second.yaml"], {"sampling.n": 5, "sampling.greedy": None})
    rows = {name: (value, origin) for name, value, origin in resolved.rows()}
    user = str(tmp_path / "user.yaml")
    assert [rows[name] for name in names] == [
        (5, "command line"), (3, "second.yaml"), (0.2, "first.yaml"), (1.1, user), (1, user),
    ]  # fmt: skip
    assert rows["sampling.greedy"] == (False, "default")
    environment = {name: (value, origin) for name, value, origin in load_settings(["second.yaml"]).rows()}
    assert environment["sampling.n"] == (4, "environment")


def test_every_setting_has_a_variable() -> None:
    """CLVP_SAMPLING_TOP_P sets sampling.top_p; an empty variable sets nothing; others are not ours."""
    layer = environment_layer({"CLVP_SAMPLING_TOP_P": "0.5", "CLVP_SEED": "", "CLVP_DEBUG": "1", "PATH": "/bin"})
    assert layer.values == {"sampling.top_p": "0.5"}
    assert resolve([layer]).settings.sampling.top_p == 0.5


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("0", False), ("TRUE", True), ("off", False)])
def test_text_of_the_environment_becomes_the_settings_type(text: str, value: bool) -> None:
    """Booleans are read as people write them."""
    assert resolve([Layer("environment", {"sampling.greedy": text})]).settings.sampling.greedy is value


def test_a_padding_is_a_word_or_a_number() -> None:
    """scoring.pad takes own, batch and a length, as text too."""
    for given, expected in {"own": "own", "batch": "batch", "500": 500, 500: 500}.items():
        assert resolve([Layer("x", {"scoring.pad": given})]).settings.scoring.pad == expected


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"sampling.temprature": 1}, "sampling.temprature"),
        ({"sampling": 5}, "'sampling'"),
        ({"sampling.n": 2.5}, "2.5"),
        ({"sampling.n": True}, "True"),
        ({"sampling.n": "many"}, "many"),
        ({"sampling.temperature": float("nan")}, "nan"),
        ({"sampling.temperature": float("inf")}, "inf"),
        ({"sampling.greedy": "perhaps"}, "perhaps"),
        ({"sampling.top_p": None}, "None"),
        ({"text.normalizer": "french"}, "french"),
        ({"scoring.pad": "wide"}, "wide"),
        ({"scoring.pad": 0}, "scoring.pad is 0"),
        ({"model": ""}, "model"),
        ({"sampling.min_codes": 9, "sampling.max_codes": 8}, "above"),
    ],
)
def test_values_that_cannot_be_are_named_with_their_origin(values: dict[str, object], says: str) -> None:
    """A bad key or value is an error that names it and where it came from."""
    with pytest.raises(ConfigError) as caught:
        resolve([Layer("some.yaml", values)])
    assert says in caught.value.message
    assert "above" in says or "some.yaml" in caught.value.message


def test_the_hint_names_the_nearest_key() -> None:
    """A slip of the pen is answered with the key that was meant."""
    with pytest.raises(ConfigError) as caught:
        resolve([Layer("x", {"sampling.topk": 5})])
    assert caught.value.hint == "did you mean 'sampling.top_k'?"


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_bounds_are_those_of_known_settings_and_hold(name: str) -> None:
    """Every bound belongs to a setting, whose default lies within it; just outside is refused."""
    low, high = BOUNDS[name]
    default = flatten(dataclasses.asdict(Settings()))[name]
    assert name in field_types() and (isinstance(default, str) or low <= default <= high)
    for outside in (low - 1, high + 1):
        with pytest.raises(ConfigError, match=name):
            resolve([Layer("x", {name: outside})])


def test_greedy_takes_the_most_probable_code_unless_a_penalty_was_asked_for() -> None:
    """--greedy turns the default penalty off and says so; a penalty that somebody named stays."""
    off = resolve([Layer("x", {"sampling.greedy": True})])
    assert off.settings.sampling.repetition_penalty == 1.0
    assert off.origins["sampling.repetition_penalty"] == "off because of greedy"
    asked = resolve([Layer("x", {"sampling.greedy": True, "sampling.repetition_penalty": 1.5})])
    assert asked.settings.sampling.repetition_penalty == 1.5


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_shipped_configurations_load(name: str) -> None:
    """Every shipped YAML file is a set of known settings."""
    assert load_settings([name]).settings


def test_the_profiles_and_presets_are_there() -> None:
    """The three profiles and Tortoise's four presets are shipped, with Tortoise's numbers of candidates."""
    assert {"default", "hf", "tortoise", "ultra_fast", "fast", "standard", "high_quality"} <= set(shipped_configs())
    counts = {name: load_settings([name]).settings.sampling.n for name in ("ultra_fast", "fast", "high_quality")}
    assert counts == {"ultra_fast": 16, "fast": 96, "high_quality": 256}
    assert load_settings(["hf", "fast"]).settings.text.normalizer == "hf"


@pytest.mark.parametrize("content", ["", "# nothing\n", "{}\n"])
def test_an_empty_file_sets_nothing(content: str, tmp_path: Path) -> None:
    """An empty YAML file is one without settings."""
    (tmp_path / "empty.yaml").write_text(content)
    assert file_layer(tmp_path / "empty.yaml").values == {}


def test_a_file_beats_a_shipped_name_only_by_path(tmp_path: Path) -> None:
    """A name finds the shipped file, a path the file; a name of neither is an error that lists what there is."""
    (tmp_path / "mine.yaml").write_text("seed: 3\n")
    assert find_config("mine.yaml") == Path("mine.yaml")
    assert find_config("hf").name == "hf.yaml"
    with pytest.raises(ConfigError) as caught:
        find_config("mine")
    assert "tortoise" in str(caught.value.hint)


def test_a_value_without_end_and_a_home_that_is_not_there_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages stay short whatever was given, and `~` of nobody is a name like any other."""
    for value in ("9" * 5000, 10**5000, ["x" * 9999] * 99):
        with pytest.raises(ConfigError) as caught:
            resolve([Layer("some.yaml", {"sampling.n": value})])
        assert len(caught.value.message) < 200
    with pytest.raises(ConfigError, match=r"~nosuch/x\.yaml: no such file"):
        find_config("~nosuch/x.yaml")
    monkeypatch.setenv("CLVP_USER_CONFIG", "~nosuch/x.yaml")
    assert load_settings().settings == Settings()
