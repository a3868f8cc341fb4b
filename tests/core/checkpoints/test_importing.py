"""Importing: read in a child process, checked again, kept with its provenance."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core import cli
from core.checkpoints import catalogue, importing
from core.checkpoints.cards import CARD, read_card
from core.checkpoints.diffusers_folder import find_weights
from core.checkpoints.importing import Hints, Import, import_checkpoint
from core.checkpoints.published import PublishedCheckpoint, find_published, published
from core.checkpoints.store import CONFIG, WEIGHTS, load_checkpoint
from core.errors import Stopped, UserError
from core.events import Watcher
from core.files import sha256
from tests.core.checkpoints.reference_unet import Flags, random_state, run
from tests.core.checkpoints.test_diffusers_folder import make

FLAGS = Flags(image_size=16, num_channels=32, num_res_blocks=1, channel_mult=(1, 2))
SAID = {
    "licence": "MIT", "pretraining_data": "noise", "overlap": "no",
    "overlap_reason": "noise is nobody",
}  # fmt: skip
HINTS = Hints(
    process="eps-cosine-4000", resolution=16, heads=4, attention_order="legacy"
)
ENTRY = PublishedCheckpoint(
    name="small", title="Small", file="model.pt", source="nowhere", licence="CC0-1.0",
    pretraining_data="noise", pretraining_licences="none", parameters=1, width=32,
    learns_variance=True, steps=7, batch_size=3, hints=HINTS,
)  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def model(tmp_path) -> Path:
    torch.save(random_state(FLAGS), tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.fixture
def quick(monkeypatch):
    """Convert here instead of in a child: the child has tests of its own."""
    from core.checkpoints.conversion import convert

    def here(source, made, hints, card, work, watcher):
        convert(source, made, vars(hints), dict(card))

    monkeypatch.setattr(importing, "_convert_in_child", here)


def wish(path: Path, /, **changes) -> Import:
    return Import(**({"path": path, "name": "mine", "hints": HINTS} | SAID | changes))


def left(home: Path) -> list[str]:
    """What is in the folder of imported checkpoints."""
    folder = home / "checkpoints"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_the_command_imports_and_the_catalogue_finds(tmp_path, model, home, capsys):
    """The whole way, through the child process."""
    done = cli.main(
        ["import-checkpoint", str(model), "mine", "--overlap", "no", "--licence", "MIT",
         "--overlap-reason", "noise is nobody", "--pretraining-data", "noise",
         "--process", "eps-cosine-4000", "--resolution", "16", "--heads", "4",
         "--attention-order", "legacy", "--json"]
    )  # fmt: skip
    assert done == 0, capsys.readouterr().err
    shown = json.loads(capsys.readouterr().out)
    assert shown["overlap"] == "no"
    folder = home / "checkpoints" / "mine"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [CARD, CONFIG, WEIGHTS]
    )
    assert left(home) == ["mine"]
    card = catalogue.find("mine")
    assert card.folder == folder and card in catalogue.available()
    assert (card.licence, card.pretraining_data) == ("MIT", "noise")
    assert (card.overlap, card.overlap_reason) == ("no", "noise is nobody")
    assert card.source_sha256 == sha256(model)
    assert card.parameterisation == "eps-cosine-4000"
    assert "legacy attention order" in card.conversion
    images, times = torch.randn(2, 3, 16, 16), torch.tensor([1, 2000])
    with torch.no_grad():
        expected = run(FLAGS, random_state(FLAGS), images, times, times)[:, :3]
        found = load_checkpoint(folder).network(images, times, times)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_child_says_what_is_wrong_and_nothing_is_kept(tmp_path, home):
    trace = tmp_path / "it ran"

    class Trap:
        def __reduce__(self):
            return open, (str(trace), "w")

    torch.save({"a": Trap()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt.*wants to run code.*open"):
        import_checkpoint(wish(tmp_path / "evil.pt"), Watcher())
    assert not trace.exists() and left(home) == []


def test_a_child_that_dies_is_reported(model, home, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match="ended early"):
        import_checkpoint(wish(model), Watcher())
    assert left(home) == []


def test_a_stop_ends_the_child_and_keeps_nothing(model, home, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/cat")
    monkeypatch.setattr(importing, "_environment", lambda work: {"PATH": "/bin"})
    started = []
    popen = subprocess.Popen

    def sleeping(command, **more):
        started.append(popen(["/bin/sleep", "60"], **more))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", sleeping)
    with pytest.raises(Stopped):
        import_checkpoint(wish(model), Watcher(stop_requested=lambda: True))
    assert started[0].poll() < 0, "it was not killed"
    assert left(home) == []


LIMITED = """
import resource
from core.checkpoints import conversion
conversion.MEMORY = 2**30
conversion._limit({size})
{act}
"""


@pytest.mark.parametrize(
    ("act", "ending"),
    [
        ("bytearray(2**31)", "MemoryError"),
        ("open('big', 'wb').write(bytes(2**21))", "File too large"),
        ("files = [open('/dev/null') for _ in range(300)]", "Too many open files"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")
def test_the_child_has_limits(tmp_path, act, ending):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.format(size=0, act=act)],
        cwd=tmp_path, capture_output=True, text=True,
        env=importing._environment(tmp_path),
    )  # fmt: skip
    assert done.returncode != 0 and ending in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "Mine"}, "name 'Mine'"),
        ({"name": "../mine"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "starter"}, "Sfumato's own"),
        ({"name": "scratch-mine"}, "Sfumato's own"),
        ({"overlap": ""}, r"these patients \(--overlap\): no, unsure, yes"),
        ({"overlap": "", "path": Path("nowhere.pt")}, r"nowhere\.pt"),
        ({"overlap": "perhaps"}, "these patients"),
        ({"licence": ""}, "licence"),
        ({"pretraining_data": ""}, "pretraining data"),
        ({"path": Path("nowhere.pt")}, r"nowhere\.pt"),
        ({"published": "nonesuch"}, "imagenet64-cond-270m"),
        ({"published": "edm-imagenet64"}, "pickle that holds a program"),
    ],
)
def test_wishes_that_cannot_be_are_refused_before_anything_is_read(
    model, home, quick, changes, named
):
    with pytest.raises(UserError, match=named):
        import_checkpoint(wish(model, **changes), Watcher())
    assert left(home) == []


@pytest.mark.parametrize(
    ("name", "named"), [("a.pkl", "holds a program"), ("a.ckpt", "no kind")]
)
def test_endings_that_are_not_taken_are_named(tmp_path, name, named):
    (tmp_path / name).write_bytes(pickle.dumps({}))
    with pytest.raises(UserError, match=named):
        import_checkpoint(wish(tmp_path / name), Watcher())


def test_a_training_state_and_an_unknown_layout_are_named(tmp_path, quick, home):
    state = {"weight": torch.zeros(2)}
    torch.save({"model": state, "step": 3}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="more than the weights"):
        import_checkpoint(wish(tmp_path / "a.pt"), Watcher())
    torch.save(
        {f"all_modules.0.{name}": t for name, t in state.items()}, tmp_path / "b.pt"
    )
    with pytest.raises(UserError, match="no layout that Sfumato knows"):
        import_checkpoint(wish(tmp_path / "b.pt"), Watcher())
    assert left(home) == []


def test_weights_that_are_not_numbers_are_refused(tmp_path, quick, home):
    state = random_state(FLAGS)
    state["out.2.bias"][0] = float("nan")
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a\.pt hold values that are not numbers"):
        import_checkpoint(wish(tmp_path / "a.pt"), Watcher())
    assert left(home) == []


@pytest.mark.parametrize("huge", [1e38, 1e30])
def test_a_network_that_answers_with_no_numbers_is_refused(tmp_path, quick, home, huge):
    state = random_state(FLAGS)
    state["input_blocks.0.0.weight"] *= huge
    assert all(tensor.isfinite().all() for tensor in state.values())
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(UserError, match="answers with values that are not numbers"):
        import_checkpoint(wish(tmp_path / "a.pt"), Watcher())
    assert left(home) == []


def test_a_name_is_given_once(model, quick, home):
    first = import_checkpoint(wish(model), Watcher())
    with pytest.raises(UserError, match="already"):
        import_checkpoint(wish(model, overlap="yes"), Watcher())
    assert read_card(first.folder) == first


def test_the_catalogue_fills_in_what_was_not_said(model, quick, monkeypatch):
    count = sum(tensor.numel() for tensor in random_state(FLAGS).values())
    entry = ENTRY.__class__(**(vars(ENTRY) | {"parameters": count}))
    monkeypatch.setattr(importing, "find_published", lambda name: entry)
    card = import_checkpoint(
        wish(model, published="small", licence="", hints=Hints(process="v")), Watcher()
    )
    assert (card.licence, card.source, card.steps) == ("CC0-1.0", "nowhere", 7)
    # What is said goes before what the catalogue says.
    assert card.parameterisation == "v"
    assert card.pretraining_data == "noise"
    # Nothing but the number of its weights says that the file is the catalogue's.
    assert card.conversion.endswith(
        "said to be the catalogue's small, of which no SHA-256 is known to check it by"
    )


@pytest.mark.parametrize(
    ("changes", "named"), [({}, "numbers"), ({"sha256": "0" * 64}, "SHA-256")]
)
def test_a_file_that_is_not_the_catalogues_is_refused(
    model, quick, home, monkeypatch, changes, named
):
    entry = ENTRY.__class__(**(vars(ENTRY) | changes))
    monkeypatch.setattr(importing, "find_published", lambda name: entry)
    with pytest.raises(UserError, match=named):
        import_checkpoint(wish(model, published="small"), Watcher())
    assert left(home) == []


def test_of_a_folder_the_file_that_the_catalogue_means_is_read(
    tmp_path, quick, home, monkeypatch
):
    """A genuine file elsewhere in the folder vouches for no other."""
    theirs = tmp_path / "theirs"
    unet = make(theirs, safe=False)
    genuine = find_weights(theirs)[0]
    entry = ENTRY.__class__(
        **vars(ENTRY)
        | {
            "sha256": sha256(genuine), "hints": Hints(process="eps"),
            "parameters": unet.num_parameters(), "learns_variance": False,
        }
    )  # fmt: skip
    monkeypatch.setattr(importing, "find_published", lambda name: entry)
    mine = wish(theirs, published="small", hints=Hints())
    # Of both forms the published one is taken, though the other usually comes first.
    make(theirs, safe=True)
    assert import_checkpoint(mine, Watcher()).source_sha256 == entry.sha256
    (theirs / "old").mkdir()
    genuine.rename(theirs / "old" / genuine.name)
    again = Import(**vars(mine) | {"name": "again"})
    with pytest.raises(UserError, match="not the catalogue's 'small'"):
        import_checkpoint(again, Watcher())
    (theirs / genuine.name).mkdir()
    with pytest.raises(UserError, match="not the catalogue's 'small'"):
        import_checkpoint(again, Watcher())
    assert left(home) == ["mine"]


def test_a_file_that_changes_while_it_is_read_is_not_kept(model, home, monkeypatch):
    from core.checkpoints import conversion

    answers = conversion._answers

    def meanwhile(network):
        model.write_bytes(b"another")
        return answers(network)

    monkeypatch.setattr(conversion, "_answers", meanwhile)
    monkeypatch.setattr(
        importing, "_convert_in_child",
        lambda source, made, hints, card, work, watcher: conversion.convert(
            source, made, vars(hints), dict(card)
        ),
    )  # fmt: skip
    with pytest.raises(UserError, match="changed while it was read"):
        import_checkpoint(wish(model), Watcher())
    assert left(home) == []


def test_a_file_that_was_exchanged_before_it_was_read_is_not_the_catalogues(
    model, quick, home, monkeypatch
):
    count = sum(tensor.numel() for tensor in random_state(FLAGS).values())
    known = {"parameters": count, "sha256": sha256(model)}
    entry = ENTRY.__class__(**(vars(ENTRY) | known))
    monkeypatch.setattr(importing, "find_published", lambda name: entry)
    real = importing.require_space

    def exchange(*needed):
        torch.save({n: 2 * t for n, t in random_state(FLAGS).items()}, model)
        real(*needed)

    monkeypatch.setattr(importing, "require_space", exchange)
    with pytest.raises(UserError, match="not the catalogue's 'small' any more"):
        import_checkpoint(wish(model, published="small"), Watcher())
    assert left(home) == []


def test_who_must_answer_is_told_what_it_was_trained_on(model):
    with pytest.raises(UserError, match="trained on: LSUN bedrooms, 256"):
        import_checkpoint(
            wish(model, published="lsun-bedroom-1200k", overlap="",
                 pretraining_data=""),
            Watcher(),
        )  # fmt: skip


def test_a_damaged_import_does_not_hide_the_others(model, quick, home):
    import_checkpoint(wish(model), Watcher())
    import_checkpoint(wish(model, name="other"), Watcher())
    (home / "checkpoints" / "mine" / CARD).write_text("{")
    assert [card.name for card in catalogue.imported()] == ["other"]
    with pytest.raises(UserError, match="damaged"):
        catalogue.find("mine")


def test_the_catalogue_is_complete_and_consistent():
    entries = published()
    assert len({entry.name for entry in entries}) == len(entries) > 12
    for entry in entries:
        assert entry.title and entry.source and entry.licence and entry.pretraining_data
        assert entry.parameters > 1e6 and entry.megabytes > 1
        if not entry.refused:
            assert find_published(entry.name) == entry
            assert entry.hints.process and entry.hints.resolution
    # 143 MB, as published.
    assert find_published("ddpm-cifar10-32").megabytes == 143


def test_the_published_diffusers_network_has_its_published_size(tmp_path):
    """google/ddpm-cifar10-32: its config, and 35,746,307 parameters."""
    from core.checkpoints.diffusers_folder import understand
    from core.diffusion.networks import build_network

    config = {
        "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu",
        "attention_head_dim": None, "block_out_channels": [128, 256, 256, 256],
        "center_input_sample": False, "downsample_padding": 0, "freq_shift": 1,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", *["DownBlock2D"] * 2],
        "flip_sin_to_cos": False, "in_channels": 3, "layers_per_block": 2,
        "mid_block_scale_factor": 1, "norm_eps": 1e-06, "norm_num_groups": 32,
        "out_channels": 3, "sample_size": 32, "time_embedding_type": "positional",
        "up_block_types": [*["UpBlock2D"] * 2, "AttnUpBlock2D", "UpBlock2D"],
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    entry = find_published("ddpm-cifar10-32")
    layout = understand(tmp_path / "config.json", {}, entry.hints)
    with torch.device("meta"):
        state = build_network(layout.config).state_dict()
    assert sum(t.numel() for t in state.values()) == entry.parameters_kept == 35_746_307


def test_without_a_path_the_command_lists_the_catalogue(capsys):
    assert cli.main(["import-checkpoint"]) == 0
    shown = capsys.readouterr().out
    for entry in published():
        assert f"{entry.name}: " in shown and entry.pretraining_data in shown
        assert entry.file in shown and entry.source in shown
    assert "not to be imported" in shown and "starter: " in shown
    assert cli.main(["import-checkpoint", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [card["name"] for card in content["at_hand"]] == ["starter"]
    known = {entry["name"]: entry for entry in content["known"]}
    assert known["adm-imagenet256-uncond"]["sha256"].startswith("a37c32ff")
    assert known["adm-imagenet64"]["hints"]["attention_order"] == "new"


def test_a_name_is_asked_for(model, capsys):
    assert cli.main(["import-checkpoint", str(model)]) == cli.MISTAKE
    assert "name" in capsys.readouterr().err
