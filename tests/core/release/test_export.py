from __future__ import annotations

import csv
import errno
import html.parser
import re
import shutil
import time
from pathlib import Path

import pytest

from core.errors import Stopped, UserError
from core.events import Watcher
from core.files import sha256
from core.release import dataset, png
from core.release.audit import build_audit, digest
from core.release.dataset import csv_cell, export_release, folder_names
from core.release.pdf import pdf
from core.release.report import card
from core.release.report import html as render_html
from core.release.wording import FORBIDDEN
from tests.core.release.conftest import make_facts


def test_image_folder_opens_it(exported):
    from torchvision.datasets import ImageFolder

    images = ImageFolder(exported / "images")
    assert images.classes == ["normal", "tumour"]
    assert len(images) == 8
    assert images[0][0].size == (8, 8)


def test_pixels_are_kept_and_everything_else_is_left_out(exported, sources):
    import numpy as np
    from PIL import Image

    source, copy = sources[0] / "000002.png", exported / "images/tumour/000002.png"
    assert "tEXt" in dict(png.chunks(source.read_bytes()))
    assert set(dict(png.chunks(copy.read_bytes()))) == set(png.CHUNKS)
    assert np.array_equal(np.array(Image.open(source)), np.array(Image.open(copy)))


def test_metadata_names_every_image_with_its_label(exported):
    with open(exported / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for row in rows:
        assert (exported / row["file_name"]).is_file()
        expected = {"0": "tumour", "1": "normal"}[row["label"]]
        assert row["class_name"] == expected


def test_sums_cover_every_file_but_themselves_in_order(exported):
    lines = (exported / "SHA256SUMS").read_text().splitlines()
    listed = dict(reversed(line.split("  ", 1)) for line in lines)
    there = {
        path.relative_to(exported).as_posix(): sha256(path)
        for path in exported.rglob("*")
        if path.is_file() and path.name != "SHA256SUMS"
    }
    assert listed == there
    assert list(listed) == sorted(listed)


def test_file_times_tell_nothing(exported):
    assert {path.stat().st_mtime for path in exported.rglob("*")} == {
        dataset.FIXED_TIME
    }


def test_no_document_uses_a_forbidden_word_or_a_path(exported, sources):
    for name in ("README.md", "audit.json", "audit_report.html"):
        text = (exported / name).read_text()
        assert not FORBIDDEN.search(text), name
        assert str(sources[0].parent) not in text


@pytest.mark.parametrize("kind", ["file", "full folder", "link"])
def test_nothing_is_ever_overwritten(kind, tmp_path, sources):
    destination = tmp_path / "release"
    if kind == "file":
        destination.write_text("precious")
    elif kind == "link":
        destination.symlink_to(tmp_path / "elsewhere")
    else:
        destination.mkdir()
        (destination / "notes.txt").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="not empty"):
        export_release(make_facts(), sources, destination)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_taken(tmp_path, sources):
    (tmp_path / "release").mkdir()
    export_release(make_facts(), sources, tmp_path / "release")
    assert (tmp_path / "release" / "audit.json").is_file()


@pytest.mark.parametrize("parent", ["missing", "file"])
def test_a_place_that_cannot_be_written_is_named(parent, tmp_path, sources):
    if parent == "file":
        (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=parent):
        export_release(make_facts(), sources, tmp_path / parent / "release")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("after", [0, 3, 10])
def test_a_disk_that_gives_out_leaves_nothing_behind(
    code, after, tmp_path, sources, monkeypatch
):
    real, written = Path.write_bytes, []

    def failing(self: Path, data: bytes) -> int:
        if len(written) >= after:
            raise OSError(code, "no more")
        written.append(self)
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", failing)
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        export_release(make_facts(), sources, tmp_path / "release")
    assert len(written) == after
    assert list(tmp_path.iterdir()) == []


def test_stopping_leaves_nothing_behind(tmp_path, sources, monkeypatch):
    facts = make_facts(images_per_class=100)
    many = []
    for index, source in enumerate(sources):
        folder = tmp_path / f"source {index}"
        folder.mkdir()
        for number in range(100):
            shutil.copy(source / "000000.png", folder / f"{number:06d}.png")
        many.append(folder)
    seen = []
    watcher = Watcher(report=seen.append, stop_requested=lambda: bool(seen))
    with pytest.raises(Stopped):
        export_release(facts, tuple(many), tmp_path / "release", watcher)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source 0", "source 1"]


def test_missing_images_are_counted_for_the_custodian(tmp_path, sources):
    with pytest.raises(UserError, match="4 of 5"):
        export_release(make_facts(images_per_class=5), sources, tmp_path / "release")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "other size"])
def test_a_damaged_synthetic_image_is_named(damage, tmp_path, sources):
    from PIL import Image

    folder = Path(shutil.copytree(sources[0], tmp_path / "damaged"))
    file = folder / "000003.png"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:60])
    else:
        Image.new("RGB", (9, 8)).save(file)
    with pytest.raises(UserError, match=r"000003\.png"):
        export_release(make_facts(), (folder, sources[1]), tmp_path / "release")
    assert not (tmp_path / "release").exists()


HOSTILE = (
    "=HYPERLINK(1)",
    "../../etc",
    "con",
    "TUMOUR",
    "tumour",
    "Größe",
    "…",
    "a" * 90,
)


def test_folder_names_are_plain_and_distinct_on_every_system():
    names = folder_names(HOSTILE)
    assert all(
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}", name) for name in names
    )
    assert len({name.lower() for name in names}) == len(HOSTILE)
    assert names[2] == "class 2"
    assert names[4] == "tumour-2"


def test_classes_of_one_name_get_folders_of_their_own_and_soon():
    start = time.process_time()
    names = folder_names(("a", "a-2", "A", "a", *["b"] * 20_000))
    assert time.process_time() - start < 10  # A search from the first takes minutes.
    assert names[:4] == ("a", "a-2", "A-3", "a-4")
    assert names[-1] == "b-20000" and len(set(names)) == 20_004


def test_a_class_name_is_never_a_formula(tmp_path, sources):
    facts = make_facts(class_names=("=cmd|' /C calc'!A0", 'a "quoted", name'))
    release = export_release(facts, sources, tmp_path / "release")
    with open(release.folder / "metadata.csv", newline="") as file:
        cells = {row["label"]: row["class_name"] for row in csv.DictReader(file)}
    assert cells == {"0": "'=cmd|' /C calc'!A0", "1": 'a "quoted", name'}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\0"])
def test_every_formula_start_is_defused(start):
    assert csv_cell(f"{start}1") == f"'{start}1"
    assert csv_cell(f"1{start}") == f"1{start}"


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def test_a_hostile_title_stays_text_in_every_report():
    title = '<script>alert(1)</script><img src="https://x.example/a.png">'
    facts = make_facts(title=title, class_names=("<b>x</b>", "| y | [z](http://z)"))
    audit = build_audit(facts, {"hash_list_sha256": "00" * 32})
    page = render_html(audit)
    tags = _Tags()
    tags.feed(page)
    assert not {"script", "img", "iframe", "link", "object"} & set(tags.tags)
    assert not {"src", "href", "onload"} & {name for name, _ in tags.attributes}
    assert "url(" not in page and "@import" not in page
    assert "&lt;script&gt;" in page
    readme = card(audit, folder_names(facts.class_names))
    body = readme.split("---", 2)[2]
    assert "<script" not in body and "<b>" not in body
    assert not re.search(r"(?<!\\)\]\(http", body)
    assert pdf(audit).startswith(b"%PDF")


def test_the_reports_carry_the_digest_of_the_document_they_print(exported):
    import json

    audit = json.loads((exported / "audit.json").read_text())
    assert digest(audit) == sha256(exported / "audit.json")
    assert digest(audit) in (exported / "audit_report.html").read_text()
    assert digest(audit).encode() in (exported / "audit_report.pdf").read_bytes()


def test_the_pdf_is_the_same_for_the_same_document_on_every_machine(exported):
    """Nothing in it is compressed: the bytes do not hang on a version of zlib."""
    import json

    audit = json.loads((exported / "audit.json").read_text())
    written = (exported / "audit_report.pdf").read_bytes()
    assert pdf(audit) == written
    assert b"/Filter" not in written


def test_a_report_gives_no_other_command_than_the_programs(exported):
    import json

    audit = json.loads((exported / "audit.json").read_text())
    audit["verify_command"] = "```\n\n## The bound\n\nε = **0.1**"
    folders = folder_names(tuple(audit["product"]["class_names"]))
    for text in (card(audit, folders), render_html(audit).split("<footer>")[1]):
        assert "sfumato verify RELEASE_FOLDER" in text and "0.1" not in text


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="needs poppler's pdftotext")
def test_the_signed_page_fits_one_page(exported):
    """Claim and signature block together, and the table starts on the next page."""
    import subprocess

    command = ["pdftotext", "-l", "1", str(exported / "audit_report.pdf"), "-"]
    page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "ε = 1.000" in page and "δ = 1e-5" in page
    assert "6. Signatures" in page and "data protection officer" in page
    assert "A. Identity" not in page
