"""A checkpoint is used only when it is exactly what its card says."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.checkpoints import catalogue
from core.checkpoints.cards import CARD, read_card, write_card
from core.checkpoints.store import CONFIG, WEIGHTS, load_checkpoint
from core.errors import UserError
from core.files import sha256
from tests.core.tiny import make_checkpoint, make_network


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))


@pytest.fixture
def folder(tmp_path):
    make_checkpoint(tmp_path / "tiny")
    return tmp_path / "tiny"


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rehash(folder):
    edit_json(folder / CARD, sha256=sha256(folder / WEIGHTS))


def test_round_trip(folder):
    loaded = load_checkpoint(folder)
    expected = make_network().state_dict()
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert loaded.card == read_card(folder)
    assert loaded.card.parameters == sum(t.numel() for t in expected.values())
    assert (loaded.card.resolution, loaded.card.folder) == (8, folder)
    assert not loaded.network.training
    for parameter in loaded.network.parameters():
        assert parameter.requires_grad and parameter.device.type == "cpu"


def test_the_file_may_change_once_it_is_loaded(folder):
    loaded = load_checkpoint(folder).network.state_dict()
    path = folder / WEIGHTS
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))
    for name, tensor in make_network().state_dict().items():
        assert torch.equal(loaded[name], tensor), name


def test_card_round_trip(folder):
    card = read_card(folder)
    write_card(card)
    assert read_card(folder) == card
    assert "folder" not in json.loads((folder / CARD).read_text())


def test_one_changed_byte_is_found(folder):
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(UserError, match="SHA-256"):
        load_checkpoint(folder)


def test_a_pickle_in_disguise_is_not_run(folder, tmp_path):
    trace = tmp_path / "it ran"

    class Trap:
        def __reduce__(self):
            return open, (str(trace), "w")

    (folder / WEIGHTS).write_bytes(pickle.dumps(Trap()))
    rehash(folder)
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(folder)
    assert not trace.exists()


@pytest.mark.parametrize("broken", ["cut", "nan", "missing", "extra", "shape"])
def test_weights_that_do_not_fit_are_refused(folder, broken):
    path = folder / WEIGHTS
    tensors = load_file(path)
    name = sorted(tensors)[0]
    if broken == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif broken == "nan":
        tensors[name].view(-1)[0] = float("nan")
    elif broken == "missing":
        del tensors[name]
    elif broken == "extra":
        tensors["more"] = torch.zeros(1)
    else:
        tensors[name] = torch.zeros(1, 1)
    if broken != "cut":
        save_file(tensors, path)
    rehash(folder)
    expected = {"cut": "cannot be read", "nan": "not numbers"}
    with pytest.raises(UserError, match=expected.get(broken, "another architecture")):
        load_checkpoint(folder)


@pytest.mark.parametrize("content", [{}, {"_class_name": "UNet2DModel"}])
def test_another_architecture_is_named(folder, content):
    (folder / CONFIG).write_text(json.dumps(content))
    with pytest.raises(UserError, match="another architecture"):
        load_checkpoint(folder)


@pytest.mark.parametrize("gone", [CARD, CONFIG, WEIGHTS])
def test_a_missing_file_is_the_users_to_bring_back(folder, gone):
    (folder / gone).unlink()
    with pytest.raises(UserError, match=str(folder)):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"parameterisation": "x0"},
        {"parameterisation": "eps-cosine-0"},
        {"colour": "blue"},
        {"steps": None},
        {"steps": "many"},
        {"parameters": True},
        {"licence": 3},
        {"overlap": "perhaps"},
    ],
)
def test_an_incomplete_card_is_refused(folder, changes):
    if changes == {"steps": None}:
        content = json.loads((folder / CARD).read_text())
        del content["steps"]
        (folder / CARD).write_text(json.dumps(content))
    else:
        edit_json(folder / CARD, **changes)
    with pytest.raises(UserError, match="card"):
        read_card(folder)


def test_a_card_from_before_the_later_fields_is_read(folder):
    content = json.loads((folder / CARD).read_text())
    for name in (
        "image_channels",
        "source",
        "source_sha256",
        "conversion",
        "overlap",
        "overlap_reason",
    ):
        del content[name]
    (folder / CARD).write_text(json.dumps(content))
    card = read_card(folder)
    assert (card.overlap, card.source, card.image_channels) == ("", "", 3)
    assert card.predicts.name == "v"


def test_a_checkpoint_is_found_by_name_or_folder(folder, monkeypatch):
    assert catalogue.find(str(folder)).name == "tiny"
    with pytest.raises(UserError, match="no checkpoint"):
        catalogue.find("nonesuch")
    monkeypatch.setattr(catalogue, "bundled_folder", lambda: folder.parent)
    assert [card.name for card in catalogue.available()] == ["tiny"]
    assert catalogue.find("tiny").folder == folder


def test_an_imported_name_comes_before_a_folder_called_so(
    folder, tmp_path, monkeypatch
):
    mine = tmp_path / "home" / "checkpoints" / "tiny"
    shutil.copytree(folder, mine)
    monkeypatch.chdir(tmp_path)
    assert catalogue.find("tiny").folder == mine
    assert catalogue.find("./tiny").folder.resolve() == folder


def test_every_bundled_checkpoint_is_whole_and_small():
    cards = catalogue.available()
    assert "starter" in [card.name for card in cards]
    for card in cards:
        loaded = load_checkpoint(card.folder)
        assert loaded.network.config.resolution == card.resolution
        assert sum(f.stat().st_size for f in card.folder.iterdir()) < 8 * 2**20
