"""A checkpoint is used only when it is exactly what its card says."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.checkpoints import catalogue, store
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


@pytest.mark.parametrize(
    "changes", [{"sine_first": True}, {"frequency_shift": 1}, {"norm_epsilon": 1e-2}]
)
def test_a_config_that_changed_is_found_where_all_sizes_stay(folder, changes):
    content = json.loads((folder / CONFIG).read_text())
    content["sfumato_network"] |= changes
    (folder / CONFIG).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"config\.json in .* is not the one"):
        load_checkpoint(folder)
    # A card of an older version does not say it; who loads it does.
    edit_json(folder / CARD, config_sha256="")
    found = load_checkpoint(folder).card
    assert found.config_sha256 == sha256(folder / CONFIG)


@pytest.mark.parametrize(
    "changes", [{"resolution": 16}, {"image_channels": 1}, {"parameters": 5}]
)
def test_a_card_of_another_network_is_refused(folder, changes):
    edit_json(folder / CARD, **changes)
    with pytest.raises(UserError, match="other sizes"):
        load_checkpoint(folder)


def test_the_weights_are_read_once(folder, monkeypatch):
    """What is hashed is what is used, whoever writes into the folder meanwhile."""
    loaded, real = [], store.load

    def swapped(content):
        (folder / WEIGHTS).write_bytes(b"swapped")
        loaded.append(content)
        return real(content)

    monkeypatch.setattr(store, "load", swapped)
    network = load_checkpoint(folder).network
    assert len(loaded) == 1 and (folder / WEIGHTS).read_bytes() == b"swapped"
    for name, tensor in make_network().state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_no_more_is_read_than_such_a_network_has(folder, monkeypatch):
    with open(folder / WEIGHTS, "ab") as file:
        file.truncate(2**32)
    monkeypatch.setattr(store, "load", None)
    with pytest.raises(UserError, match="larger than such a file can be"):
        load_checkpoint(folder)


@pytest.mark.parametrize("content", [{}, {"_class_name": "UNet2DModel"}])
def test_another_architecture_is_named(folder, content):
    (folder / CONFIG).write_text(json.dumps(content))
    edit_json(folder / CARD, config_sha256=sha256(folder / CONFIG))
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
        "config_sha256",
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


def test_a_folder_cannot_call_itself_untrained(folder, tmp_path):
    """Nobody is asked whether such a network could know the patients."""
    edit_json(folder / CARD, name="scratch-dpdm-grey-edm", overlap="no")
    mine = tmp_path / "home" / "checkpoints" / "mine"
    shutil.copytree(folder, mine)
    for name in ("mine", str(folder)):
        with pytest.raises(UserError, match="says that it holds an untrained network"):
            catalogue.find(name)


def test_a_known_checkpoint_that_is_not_here_is_to_be_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="import-checkpoint FILE NAME --known adm-im"):
        catalogue.find("adm-imagenet64")


def test_a_card_that_is_too_deep_or_too_large_hides_no_other(folder, tmp_path):
    place = tmp_path / "home" / "checkpoints"
    for name, content in (("deep", "[" * 200_000), ("large", " " * 2**21)):
        shutil.copytree(folder, place / name)
        (place / name / CARD).write_text(content)
    shutil.copytree(folder, place / "good")
    assert [card.folder.name for card in catalogue.imported()] == ["good"]


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
        assert card.config_sha256
        loaded = load_checkpoint(card.folder)
        assert loaded.network.config.resolution == card.resolution
        assert sum(f.stat().st_size for f in card.folder.iterdir()) < 8 * 2**20
