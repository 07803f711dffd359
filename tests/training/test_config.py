from importlib import resources
from pathlib import Path

import pytest

from convattn.errors import InputError
from convattn.models.registry import NETWORKS
from convattn.training.config import Recipe, load_recipe

BUNDLED = sorted(
    Path(entry.name).stem for entry in (resources.files("convattn.training") / "recipes").iterdir()
)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_recipe_is_of_its_network(name: str) -> None:
    assert load_recipe(name, ["data=images"]).network == name.removesuffix("-gan")


def test_every_classic_network_has_a_recipe() -> None:
    assert set(NETWORKS) <= set(BUNDLED)


def test_settings_change_values_and_keep_types() -> None:
    settings = ["data=1", "learning_rate=5e-4", "betas=[0.9, 1]", "gradient_clip=1", "validation=null"]
    recipe = load_recipe("esc", settings)
    assert recipe.data == "1"
    assert recipe.learning_rate == 5e-4
    assert recipe.betas == (0.9, 1.0)
    assert recipe.gradient_clip == 1.0
    assert recipe.validation is None
    assert recipe.folder == Path("runs/esc-x2")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("batch=1", "no key 'batch'; the nearest one is 'batch_size'"),
        ("num_threads=few", "num_threads is 'few'"),
        ("learnin_rate=1", "no key 'learnin_rate'; the nearest one is 'learning_rate'"),
        ("max_steps=many", "max_steps is 'many', but it should be a valid integer"),
        ("max_steps=1.5", "max_steps is 1.5"),
        ("max_steps=true", "max_steps is True"),
        ("max_steps=0", "max_steps is 0, but it should be greater than 0"),
        ("learning_rate=-1", "learning_rate is -1, but it should be greater than 0"),
        ("betas=[0.9]", "betas has too few values"),
        ("compile=1", "compile is 1"),
        ("schedule=linear", "schedule is 'linear'.*multistep.*cosine"),
        ("ema_decay=1", "ema_decay is 1, but it should be less than 1"),
        ("devices=3", "batch of 64 cannot be shared equally by 3"),
        ("max_steps", "not of the form key=value"),
        ("betas=[1", "not valid YAML"),
    ],
)
def test_unfit_settings_are_explained(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("esc", ["data=images", setting])


def test_unfit_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no recipe esc-giant \(did you mean esc-nano\?\); use a YAML"):
        load_recipe("esc-giant")
    with pytest.raises(InputError, match="lacks 'data'"):
        load_recipe("esc")
    (tmp_path / "list.yaml").write_text("- esc\n")
    with pytest.raises(InputError, match="key: value"):
        load_recipe(tmp_path / "list.yaml")


def test_the_published_schedule() -> None:
    recipe = load_recipe("esc", ["data=images"])
    assert recipe.rate(0) == pytest.approx(1 / 20_000)
    assert recipe.rate(9_999) == pytest.approx(0.5)
    assert [recipe.rate(step) for step in (20_000, 249_999, 250_000, 400_000)] == [1, 1, 0.5, 0.25]
    assert recipe.rate(499_999) == 0.5**5


def test_cosine_falls_from_one_to_zero() -> None:
    recipe = Recipe(network="esc", scale=2, data="images", max_steps=100, schedule="cosine")
    rates = [recipe.rate(step) for step in range(101)]
    assert rates[0] == 1
    assert rates[50] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)
    assert rates == sorted(rates, reverse=True)
