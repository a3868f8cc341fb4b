"""The decoder process: takes files as bytes, gives back pixels, may do nothing else.

Once it has loaded its libraries it gives up the right to open any file, socket or pipe,
to write any file, and to use more than its share of memory and time; on Linux also to
ask the system for anything that decoding does not need. So hostile bytes that take over
a decoder hold a process that can only answer, and the answer is checked.
"""

from __future__ import annotations

import io
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import IO, Any, Final

from PIL import Image

from core.data.decoding import Wanted, decode
from core.data.desk import cut, files_on
from core.data.frames import BrokenFrame, receive, send
from core.data.refusals import MAX_BYTES, Refused
from core.data.syscalls import refuse_all_but_decoding

MEMORY: Final = 3 * 1024**3
"""Bytes of address space; the largest image that is read needs a third of it."""

SECONDS: Final = 5.0
"""Processor time for one file; twice what 64 million pixels cost a slow computer."""

SECONDS_AMONG_OTHERS: Final = 1.0
"""Processor time for one file at the first try, when others' answers wait for its own.

One that takes longer gets a second try, with all of `SECONDS`.
"""

MESSAGE: Final = 1024 * 1024
"""Answers are sent when they come to so many bytes, or the request is at its end."""

MOST_REQUEST: Final = 2 * MAX_BYTES


def main() -> None:
    """Answer requests from standard input until it is closed."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    with open(sys.stdout.fileno(), "wb", closefd=False) as answers:
        serve(sys.stdin.buffer, answers)


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Lock this process, then answer until there are no more requests."""
    desk = files_on(int(sys.argv[1]))
    _rehearse(dicom="dicom" in sys.argv[1:])
    lock_down()
    send(answers, {"ready": True})
    while True:
        # What a file has left must not end this process at the next one.
        renew_time(SECONDS)
        try:
            header, content = receive(requests, MOST_REQUEST)
        except BrokenFrame:
            return
        sizes = header["sizes"]
        files = cut(desk if header["on_desk"] else content, sizes)
        among_others = len(sizes) > 1
        for said, blobs in _messages(header, files, among_others):
            send(answers, {"answers": said}, *blobs)


def _messages(
    header: dict[str, Any], files: Iterable[bytes], among_others: bool
) -> Iterator[tuple[list[tuple[Any, int]], list[bytes]]]:
    """The answers for all files of a request, [header, bytes] each, and their bytes."""
    said: list[tuple[Any, int]] = []
    blobs: list[bytes] = []
    held = 0
    for file in files:
        renew_time(SECONDS_AMONG_OTHERS if among_others else SECONDS)
        answer, *pixels = _answer(header, file)
        length = sum(map(len, pixels))
        said.append((answer, length))
        blobs += pixels
        held += length
        if held >= MESSAGE:
            yield said, blobs
            said, blobs, held = [], [], 0
    if said:
        yield said, blobs


def _answer(header: dict[str, Any], content: bytes) -> tuple[Any, ...]:
    """One message for one file: what it is, or the pixels of its images, or why not."""
    try:
        if header["task"] == "describe":
            from core.data.dicom import describe

            return ({"described": describe(content)},)
        wanted = Wanted(
            resolution=header["resolution"],
            channels=header["channels"],
            window=header["window"] and tuple(header["window"]),
        )
        pictures = decode(content, wanted)
    except Refused as refusal:
        return ({"refused": refusal.kind, "facts": refusal.facts},)
    except MemoryError:
        return ({"refused": "too much work", "facts": {}},)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return ({"refused": "too many pixels", "facts": {}},)
    except Exception:
        # A library that is fed hostile bytes may raise anything.
        return ({"refused": "cannot be decoded", "facts": {}},)
    facts = [[picture.width, picture.height, picture.mode] for picture in pictures]
    return ({"pictures": facts}, *(picture.pixels.tobytes() for picture in pictures))


def lock_down() -> None:
    """Give up what decoding does not need; nothing on systems without such limits."""
    try:
        import resource
    except ImportError:
        return
    limits = {
        "RLIMIT_NOFILE": 0,  # no file, socket or pipe can be opened from here on
        "RLIMIT_FSIZE": 0,  # nothing can be written to the disk
        "RLIMIT_CORE": 0,  # a crash leaves no image of private memory behind
        "RLIMIT_NPROC": 0,  # no further process
        "RLIMIT_AS": MEMORY,
    }
    for name, limit in limits.items():
        kind = getattr(resource, name, None)
        if kind is not None:
            resource.setrlimit(kind, (limit, limit))
    renew_time(SECONDS)
    refuse_all_but_decoding()


def renew_time(seconds: float) -> None:
    """Allow so much processor time from now on; the system ends us after that."""
    if hasattr(signal, "setitimer"):
        # Its signal ends a process that does not handle it, even deep in a library.
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _rehearse(*, dicom: bool) -> None:
    """Decode one image of each format, so that every library is loaded by now."""
    wanted = Wanted(resolution=8, channels=3, window=(0.0, 1.0))
    sample = Image.new("RGB", (9, 9))
    turned = Image.Exif()
    turned[0x0112] = 6
    for mode, format_name, settings in (
        ("RGB", "PNG", {"exif": turned}),
        ("RGB", "JPEG", {"exif": turned}),
        ("CMYK", "JPEG", {}),
        ("RGB", "TIFF", {"exif": turned}),
        ("L", "TIFF", {"compression": "tiff_lzw"}),
        ("F", "TIFF", {}),
        ("RGB", "BMP", {}),
    ):
        file = io.BytesIO()
        sample.convert(mode).save(file, format_name, **settings)
        decode(file.getvalue(), wanted)
    if dicom:
        from core.data.dicom import rehearse

        rehearse(wanted)


if __name__ == "__main__":
    main()
