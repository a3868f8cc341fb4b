from __future__ import annotations

import io
import mmap
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from core.data import decoder, desk, frames, reading, sandbox, syscalls
from core.data.dataset import Problem
from core.data.desk import NONE, Desk, cut, files_on, new_desk
from core.data.reading import FileImages, Picture
from core.data.refusals import Refused
from core.errors import UserError
from tests.core.data.fakes import image

ROOT = Path(__file__).parents[3]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="has desks")
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs resource limits")


def crafted(monkeypatch, body: str, first_try: float | None = None) -> None:
    """Decoders in which a file that starts with "evil" runs `body` in place of Pillow.

    As a flaw in a decoder would let it.
    """
    script = (
        "\nimport ctypes, io, os, signal, socket, time\n"
        "from core.data import decoder, frames\n"
        f"decoder.SECONDS = {sandbox.SECONDS}\n"
        f"decoder.SECONDS_AMONG_OTHERS = {first_try or sandbox.SECONDS}\n"
        "honest = decoder.decode\n"
        "def decode(content, wanted):\n"
        "    if content[:4] != b'evil': return honest(content, wanted)\n"
        + "".join(f"    {line}\n" for line in body.splitlines())
        + "decoder.decode = decode\n"
        "decoder.main()\n"
    )
    monkeypatch.setattr(sandbox, "_DECODER", script)


def read_folder(root: Path, evil: str = "3.png", count: int = 8) -> list:
    """What becomes of a folder of images, one of them evil."""
    for number in range(count):
        image(number).save(root / f"{number}.png")
    (root / evil).write_bytes(b"evil")
    names = tuple(f"{number}.png" for number in range(count))
    images = FileImages(root=root.resolve(), paths=names)
    return [outcome for batch in images.read(16, 3) for outcome in batch]


@POSIX
@pytest.mark.parametrize(
    "body",
    [
        "ctypes.string_at(0)",
        "os._exit(0)",
        "while True: pass",
        "x = []\nwhile True: x.append(bytes(2**27))",
        "os.write(1, b'garbage that is no frame at all ........')\nos._exit(0)",
        "os.write(1, b'\\xff' * 12)\ntime.sleep(60)",
        "time.sleep(600)",
        # An answer too many, for every request.
        "said = {'answers': [[{'refused': 'empty file', 'facts': {}}, 0]] * 9}\n"
        "frames.send(open(1, 'wb', closefd=False), said)\n"
        "time.sleep(60)",
    ],
)
def test_a_file_that_ends_its_decoder_costs_one_file(tmp_path, monkeypatch, body):
    monkeypatch.setattr(sandbox, "SECONDS", 0.1)
    monkeypatch.setattr(sandbox, "_STALLED", 2.5)
    crafted(monkeypatch, body)
    outcomes = read_folder(tmp_path)
    assert [type(outcome) for outcome in outcomes] == [Picture] * 3 + [Problem] + [
        Picture
    ] * 4
    assert outcomes[3].kind == "too much work"
    assert outcomes[3].path == "3.png"


@POSIX
@pytest.mark.parametrize(
    "body",
    [
        "open('/etc/passwd').close()",
        "open('/tmp/sfumato-was-here', 'w').close()",
        "socket.socket()",
        "os.pipe()",
        "os.listdir('/')",
        "os.write(os.open('/dev/null', os.O_WRONLY), b'x')",
        "import pydicom",
    ],
)
def test_a_decoder_can_open_nothing(tmp_path, monkeypatch, body):
    crafted(monkeypatch, body + "\nos._exit(0)")
    # An OSError and no exit: the rest of the files still goes to the same process.
    outcomes = read_folder(tmp_path)
    assert outcomes[3].kind == "cannot be decoded"
    assert not Path("/tmp/sfumato-was-here").exists()


@POSIX
def test_a_decoder_cannot_write_to_a_file_that_it_was_given(tmp_path):
    """No file grows, even through a handle that was open before."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from core.data.decoder import lock_down\n"
        f"file = open({str(tmp_path / 'x')!r}, 'wb', buffering=0)\n"
        "lock_down()\n"
        "file.write(b'stolen')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode != 0
    assert (tmp_path / "x").read_bytes() == b""


LIES = [
    {"pictures": []},
    {"pictures": [[1, 1, "RGB"]] * 2},
    {"pictures": [[1, 1, "RGB", 4]]},
    {"pictures": [["a", 1, "RGB"]]},
    {"pictures": [[1, 1, "R" * 41]]},
    {"pictures": "abc"},
    {"pictures": None},
    {},
    {"refused": "<b>words of its own</b>", "facts": {}},
    {"refused": "no window", "facts": "none"},
    {"refused": "no window", "facts": {"kind": "x", "self": "y"}},
    {"refused": ["a"], "facts": {"mode": "x"}},
]


@pytest.mark.parametrize("lie", LIES, ids=str)
@pytest.mark.parametrize("extra", [0, 1])
def test_a_lying_decoder_is_not_believed(lie, extra):
    blob = bytes(16 * 16 * 3 + extra)

    class Liars:
        def ask(self, task, contents, most):
            return [(lie, blob)] * len(contents)

    def checked(number, content, answer):
        return reading._pictures(content, answer, (16, 16, 3), 1)

    (outcome,) = reading._answered(
        Liars(), ["a.png"], [(0, b"content")], {}, checked, lambda _: 999
    )
    number, found = outcome
    assert number == 0
    assert isinstance(found, Problem)
    assert found.kind == "cannot be decoded"
    assert "words of its own" not in found.message


@pytest.mark.parametrize("length", [0, 16 * 16 * 3 - 1, 16 * 16 * 3 + 1])
def test_pixels_of_another_number_are_refused(length):
    answer = {"pictures": [[1, 1, "RGB"]]}, bytes(length)
    with pytest.raises(Refused):
        reading._pictures(b"content", answer, (16, 16, 3), 1)


def test_facts_of_a_decoder_cannot_mark_up_our_sentence():
    facts = {"mode": "<img src=x>\n\x1b[2J{0.__class__}" + "A" * 500}
    found = reading.problem("a.png", "no window", facts)
    assert not set("<>{}\n\x1b") & set(found.message)
    assert len(found.message) < 300


def test_the_decoder_sends_back_what_it_was_given_in_order(tmp_path):
    outcomes = read_folder(tmp_path, evil="none", count=150)
    for number, outcome in enumerate(outcomes):
        size = Image.open(tmp_path / f"{number}.png").size
        assert (outcome.width, outcome.height) == size
        wanted = image(number).resize((16, 16), Image.Resampling.BOX)
        assert outcome.pixels.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("new", [new_desk, lambda: Desk(None, NONE)])
def test_files_reach_the_decoder_with_a_desk_and_without(tmp_path, monkeypatch, new):
    monkeypatch.setattr(sandbox, "new_desk", new)
    outcomes = read_folder(tmp_path, evil="none", count=70)
    for number, outcome in enumerate(outcomes):
        wanted = image(number).resize((16, 16), Image.Resampling.BOX)
        assert outcome.pixels.tobytes() == wanted.tobytes()


@LINUX
def test_files_that_are_too_large_for_the_desk_go_through_the_pipe(tmp_path):
    large = Image.effect_noise((2600, 2600), 90)
    for number in range(3):
        large.save(tmp_path / f"{number}.tif")
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) > desk.SIZE
    names = tuple(f"{number}.tif" for number in range(3))
    images = FileImages(root=tmp_path.resolve(), paths=names)
    outcomes = [outcome for batch in images.read(16, 3) for outcome in batch]
    wanted = large.convert("RGB").resize((16, 16), Image.Resampling.BOX).tobytes()
    assert [outcome.pixels.tobytes() for outcome in outcomes] == [wanted] * 3


@LINUX
def test_a_decoder_can_read_its_desk_and_nothing_else():
    ours = new_desk()
    assert ours.lay([b"first", b"", b"second"])
    before = os.fstat(ours.handle).st_size
    for forbidden in (
        lambda: os.write(ours.handle, b"x"),
        lambda: os.pwrite(ours.handle, b"x", 0),
        lambda: os.ftruncate(ours.handle, 0),
        lambda: os.posix_fallocate(ours.handle, 0, 2 * desk.SIZE),
        lambda: mmap.mmap(ours.handle, desk.SIZE),
    ):
        with pytest.raises(OSError):
            forbidden()
    assert os.fstat(ours.handle).st_size == before == desk.SIZE
    theirs = files_on(os.dup(ours.handle))
    assert list(cut(theirs, [5, 0, 6])) == [b"first", b"", b"second"]
    assert ours.lay([b"third"]) and theirs[:5] == b"third"
    assert not ours.lay([bytes(desk.SIZE), b"x"])
    ours.clear()
    assert not ours.lay([b"first"])


@LINUX
def test_many_small_files_lie_one_after_another():
    contents = [bytes([number % 256]) * 3 for number in range(1500)]
    ours = new_desk()
    assert ours.lay(contents)
    assert list(cut(files_on(os.dup(ours.handle)), [3] * 1500)) == contents
    ours.clear()


@LINUX
@pytest.mark.parametrize("missing", ["memfd_create", "open", "posix_fallocate"])
def test_a_system_without_such_memory_has_no_desk(tmp_path, monkeypatch, missing):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(desk.os, missing, refuse)
        ours = new_desk()
        assert not ours.lay([b"first"])
    assert ours.handle == NONE
    ours.clear()


@LINUX
@pytest.mark.parametrize("closed", ["<&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_images_are_read_where_standard_handles_are_closed(tmp_path, closed):
    """A service may start like that; the desk must not take the number of another."""
    for number in range(3):
        image(number).save(tmp_path / f"{number}.png")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from core.data.reading import FileImages, Picture\n"
        f"root = Path({str(tmp_path.resolve())!r})\n"
        "images = FileImages(root=root, paths=('0.png', '1.png', '2.png'))\n"
        "found = [one for batch in images.read(16, 3) for one in batch]\n"
        "sys.exit(0 if all(isinstance(one, Picture) for one in found) else 9)\n"
    )
    command = f'exec "$0" -c "$1" {closed}'
    done = subprocess.run(["sh", "-c", command, sys.executable, code])
    assert done.returncode == 0


@LINUX
def test_no_call_but_those_of_decoding_is_left_to_a_decoder():
    """Even to the superuser; without the filter, each of them is obeyed or tried."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import ctypes, os\n"
        "from core.data import decoder\n"
        "decoder.lock_down()\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "refused = []\n"
        "for call in (\n"
        "    lambda: os.kill(os.getppid(), 0), lambda: os.stat('/'),\n"
        "    lambda: os.unlink('/no/such'), lambda: os.rename('/no/such', '/no'),\n"
        "    lambda: os.mkdir('/proc/x'), lambda: os.symlink('a', '/proc/x'),\n"
        "    lambda: os.truncate('/no/such', 0), lambda: os.fork(),\n"
        "    lambda: os.setxattr('/no/such', 'user.a', b''), lambda: os.listdir('/'),\n"
        "    lambda: os.sched_setaffinity(0, {0}), lambda: os.getpriority(0, 0),\n"
        "    lambda: os.memfd_create('x'), lambda: os.eventfd(0),\n"
        "):\n"
        "    try: call(); refused.append(0)\n"
        "    except OSError as error: refused.append(error.errno)\n"
        "for number in (101, 310, 29, 62):  # ptrace, process_vm_readv, shmget, kill\n"
        "    libc.syscall(number, 0, 0, 0, 0, 0, 0)\n"
        "    refused.append(ctypes.get_errno())\n"
        "sys.stdout.write(repr(set(refused)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{1}", "")


def test_the_filter_of_calls_reads_as_the_kernel_runs_it():
    """Each allowed number reaches the permission, every other and machine the no."""
    for machine in syscalls._MACHINES.values():
        steps = list(struct.iter_unpack("=HBBI", syscalls._filter(machine)))

        def verdict(audit, number, steps=steps):
            at, held = 0, 0
            while True:
                code, if_equal, if_not, value = steps[at]
                if code == syscalls._RETURN:
                    return value
                if code == syscalls._LOAD:
                    held = {0: number, 4: audit}[value]
                    at += 1
                else:
                    at += 1 + (if_equal if held == value else if_not)

        allowed = set(machine.allowed.values())
        for number in range(500):
            wanted = syscalls._ALLOW if number in allowed else syscalls._REFUSE
            assert verdict(machine.audit, number) == wanted
            assert verdict(machine.audit, number | 0x40000000) == syscalls._REFUSE
            assert verdict(machine.audit ^ 1, number) == syscalls._REFUSE


@LINUX
def test_reading_leaves_no_handle_open(tmp_path):
    read_folder(tmp_path)
    before = sorted(os.listdir("/proc/self/fd"))
    read_folder(tmp_path)
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "said, blob",
    [
        (None, b""),
        ([], b""),
        ([{}], b""),
        ([[{}, 1]], b""),
        ([[{}, 1]], b"ab"),
        ([[{}, -1], [{}, 2]], b"a"),
        ([["refused", 0]], b""),
        ([[{}, "1"]], b"a"),
        ([[{}, 0, 0]], b""),
        ("answers", b""),
    ],
)
def test_answers_that_do_not_add_up_are_refused(said, blob):
    with pytest.raises(frames.BrokenFrame):
        sandbox._answers({"answers": said}, blob)


def message(header, blob=b""):
    pipe = io.BytesIO()
    frames.send(pipe, header, blob)
    return pipe.getvalue()


def test_a_decoder_may_not_say_more_in_all_than_its_files_warrant():
    """Empty values in JSON take twenty times their length in memory."""
    one = message({"answers": [[{"x": [{}] * 1500}, 0]]})
    assert len(one) < sandbox._MOST_SAID
    assert len(sandbox._received(io.BytesIO(one * 4), 4, 0)) == 4
    long = message({"answers": [[{"x": [{}] * 6000}, 0]]})
    with pytest.raises(frames.BrokenFrame):
        sandbox._received(io.BytesIO(long * 4), 4, 0)
    wide = message({"answers": [[{}, 600]]}, bytes(600))
    assert len(sandbox._received(io.BytesIO(wide * 2), 2, 1200)) == 2
    with pytest.raises(frames.BrokenFrame):
        sandbox._received(io.BytesIO(wide * 2), 2, 1199)


@POSIX
def test_a_file_that_comes_alone_is_tried_once(tmp_path, monkeypatch):
    tries = []
    true_send = frames.send
    monkeypatch.setattr(
        sandbox, "send", lambda *parts: tries.append(1) or true_send(*parts)
    )
    crafted(monkeypatch, "os._exit(0)")
    (tmp_path / "3.png").write_bytes(b"evil")
    images = FileImages(root=tmp_path.resolve(), paths=("3.png",))
    (outcome,) = (one for batch in images.read(16, 3) for one in batch)
    assert outcome.kind == "too much work" and len(tries) == 1


@POSIX
def test_an_answer_that_was_not_waited_for_is_no_answer_to_the_next(monkeypatch):
    """Whatever went wrong in between, such as a lack of memory."""
    files = [io.BytesIO(), io.BytesIO()]
    for file, colour in zip(files, ("red", "green"), strict=True):
        Image.new("RGB", (8, 8), colour).save(file, "PNG")
    red, green = (file.getvalue() for file in files)
    task = {"task": "decode", "resolution": 8, "channels": 3, "window": None}
    with sandbox.decoders(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(sandbox, "_received", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                pool.ask(task, [red], [192])
        ((_, pixels),) = pool.ask(task, [green], [192])
    assert bytes(pixels[:3]) == bytes((0, 128, 0))


def test_decoders_that_are_closed_start_no_process(monkeypatch):
    started = []
    monkeypatch.setattr(sandbox, "started", lambda *given: started.append(given))
    pool = sandbox.Decoders(1)
    pool.close()
    with pytest.raises(OSError, match="closed"):
        pool.ask({"task": "decode"}, [b"x"], [1])
    assert started == []


def test_each_answer_has_its_own_bytes():
    said = [[{"pictures": []}, 2], [{"refused": "x"}, 0], [{"pictures": []}, 1]]
    found = sandbox._answers({"answers": said}, b"abc")
    assert [blob for _, blob in found] == [b"ab", b"", b"c"]


def test_a_decoder_that_cannot_start_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "_DECODER", "raise SystemExit(1)")
    with pytest.raises(UserError, match="did not start"):
        read_folder(tmp_path)


def test_no_decoder_outlives_its_reader(tmp_path, monkeypatch):
    started = []
    original = sandbox.started

    def noted(*arguments):
        started.append(original(*arguments))
        return started[-1]

    monkeypatch.setattr(sandbox, "started", noted)
    for number in range(300):
        (tmp_path / f"{number}.png").write_bytes(b"x")
    names = tuple(f"{number}.png" for number in range(300))
    batches = FileImages(root=tmp_path.resolve(), paths=names).read(16, 3)
    next(iter(batches))
    batches.close()
    assert started
    assert all(process.returncode is not None for process in started)


def test_decoders_start_without_torch_or_qt():
    code = (
        "import sys, core.data.decoder;"
        "print([n for n in ('torch', 'PySide6', 'h5py', 'pydicom', 'scipy')"
        " if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 5,
        frames._LENGTHS.pack(2**31, 0),
        frames._LENGTHS.pack(2, 10**15) + b"{}",
        frames._LENGTHS.pack(2, 5) + b"{}abc",
        frames._LENGTHS.pack(2, 0) + b"[]",
        frames._LENGTHS.pack(4, 0) + b"{{{{",
        frames._LENGTHS.pack(60_000, 0) + b"[" * 60_000,
    ],
)
def test_what_is_no_frame_is_refused(content):
    with pytest.raises(frames.BrokenFrame):
        frames.receive(io.BytesIO(content), most=1000)


def test_a_frame_comes_back_as_it_was_sent():
    pipe = io.BytesIO()
    frames.send(pipe, {"a": [1, "ü"]}, b"bytes", b"more")
    pipe.seek(0)
    assert frames.receive(pipe, most=9) == ({"a": [1, "ü"]}, b"bytesmore")


@pytest.mark.parametrize(
    "sizes, seconds",
    [([1, 1, 1], decoder.SECONDS_AMONG_OTHERS), ([3], decoder.SECONDS)],
)
def test_the_time_of_a_decoder_is_per_file(monkeypatch, sizes, seconds):
    """Honest files in any number do not add up to the limit of one."""
    requests, answers, renewed = io.BytesIO(), io.BytesIO(), []
    task = {"task": "decode", "sizes": sizes, "on_desk": False}
    frames.send(requests, task, b"abc")
    requests.seek(0)
    monkeypatch.setattr(sys, "argv", ["-c", str(NONE)])
    monkeypatch.setattr(decoder, "lock_down", lambda: None)
    monkeypatch.setattr(decoder, "renew_time", renewed.append)
    decoder.serve(requests, answers)
    # And what a file has left is not for receiving the next.
    assert renewed == [decoder.SECONDS, *[seconds] * len(sizes), decoder.SECONDS]
    answers.seek(0)
    assert frames.receive(answers, 0)[0] == {"ready": True}


@POSIX
def test_the_two_tries_of_one_file_take_less_than_ten_seconds():
    """Of processor time; starting decoders anew takes some of the rest."""
    assert decoder.SECONDS_AMONG_OTHERS + decoder.SECONDS <= 7
    before = signal.getitimer(signal.ITIMER_PROF)
    try:
        decoder.renew_time(3.0)
        assert 2.5 < signal.getitimer(signal.ITIMER_PROF)[0] <= 3.1
    finally:
        signal.setitimer(signal.ITIMER_PROF, *before)


@POSIX
@pytest.mark.parametrize("loop", ["pass", "sum(range(10**6))"])
def test_processor_time_ends_a_decoder_and_the_time_given_is_renewed(loop):
    code = (
        "import time\nfrom core.data.decoder import lock_down, renew_time\n"
        "lock_down()\nrenew_time(60.0)\nrenew_time(0.2)\n"
        f"while True: {loop}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGPROF


@POSIX
def test_a_slow_honest_file_is_read_at_the_second_try(tmp_path, monkeypatch):
    """It is given up among others, and has more time when it is alone."""
    crafted(
        monkeypatch,
        "began = time.process_time()\n"
        "while time.process_time() - began < 0.3: pass\n"
        "file = io.BytesIO()\n"
        "decoder.Image.new('RGB', (20, 20)).save(file, 'PNG')\n"
        "return honest(file.getvalue(), wanted)",
        first_try=0.1,
    )
    outcomes = read_folder(tmp_path)
    assert [type(outcome) for outcome in outcomes] == [Picture] * 8


@POSIX
def test_a_picture_of_thousands_of_passes_is_one_problem(tmp_path):
    """A small file, real and hostile: each pass goes over 64 million pixels again."""
    file = io.BytesIO()
    Image.new("RGB", (8000, 8000)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content[content.rindex(b"\xff\xda") : -2]
    bomb = content[:-2] + last * 1000 + b"\xff\xd9"
    assert len(bomb) < 2_000_000
    read_folder(tmp_path)
    (tmp_path / "3.png").write_bytes(bomb)
    names = tuple(f"{number}.png" for number in range(8))
    images = FileImages(root=tmp_path.resolve(), paths=names)
    outcomes = [outcome for batch in images.read(16, 3) for outcome in batch]
    assert [
        n for n, outcome in enumerate(outcomes) if isinstance(outcome, Problem)
    ] == [3]
    assert outcomes[3].kind == "too much work"
