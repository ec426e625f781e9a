"""The physical lines of a text file."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import BinaryIO

from forge_platform.file_formats.chunks import CHUNK_ROWS

LONGEST_LINE = 1024 * 1024
TOO_LONG = f"the line has more than {LONGEST_LINE:,} bytes; only its start is kept here"
CUT_OFF = "; no line end follows: is the file cut off?"

_BLOCK_BYTES = 8 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class Lines:
    """The physical lines of a file, counted from 1; the last ones can be given back.

    Attributes:
        number: of the line taken last.
        too_long: numbers of the lines of which only the start was read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.number = 0
        self.too_long: set[int] = set()
        self._file = file
        self._returned: deque[bytes] = deque()

    def take(self) -> bytes:
        """The next line with its end; empty at the end of the file."""
        line = self._returned.popleft() if self._returned else self._read()
        self.number += bool(line)
        return line

    def take_block(self) -> list[bytes]:
        """The next lines, as many as make a chunk."""
        block: list[bytes] = []
        size = 0
        while len(block) < CHUNK_ROWS and size < _BLOCK_BYTES and (line := self.take()):
            block.append(line)
            size += len(line)
        return block

    def give_back(self, lines: Sequence[bytes]) -> None:
        """Makes the lines that were taken last the next ones again."""
        self._returned.extendleft(reversed(lines))
        self.number -= len(lines)

    def _read(self) -> bytes:
        line = self._file.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            self.too_long.add(self.number + 1)
            while (rest := self._file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
        return line.removeprefix(_BOM) if self.number == 0 else line


def decoded(line: bytes) -> tuple[str, str | None]:
    """A line as text, with escapes for what is not UTF-8, and what is wrong with it."""
    try:
        return line.decode(), None
    except UnicodeDecodeError as error:
        bad = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
        return line.decode(errors="backslashreplace"), f"not UTF-8: {bad}"


def shown(lines: Sequence[bytes]) -> str:
    """Lines as they are kept with a rejected row."""
    return b"".join(lines).rstrip(b"\r\n").decode(errors="backslashreplace")


def end_hint(line: bytes) -> str:
    """What to add to the problem of a line that may have been cut off."""
    return "" if line.endswith(b"\n") else CUT_OFF
