"""Bytes to text in pieces, without losing one: a byte that is no text survives as a lone surrogate and goes back exact.

So a codec can delimit a record first and judge its bytes after, and one wrong byte spoils one record and not the file.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

from connectors.formats.records import ByteSource, Flaw, FlawError, show
from connectors.formats.settings import Encoding

PIECE_SIZE = 128 * 1024

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SNIFFED_BYTES = 64


class Characters:
    """The text of a stream, in pieces.

    Raises `RejectedError` when the first bytes contradict the declared encoding, and at an end inside a UTF-16 unit.
    """

    def __init__(self, source: ByteSource, encoding: Encoding) -> None:
        self._source = source
        head = read_head(source, _SNIFFED_BYTES)
        self._codec, mark = _settle(head, encoding)
        self._errors = "surrogatepass" if self._codec.startswith("utf-16") else "surrogateescape"
        self._decoder = codecs.getincrementaldecoder(self._codec)(self._errors)
        self._head = head[len(mark) :]
        self._ended = False

    def read(self) -> str:
        """The next piece; empty at the end and only there."""
        while not self._ended:
            data = self._head or self._source.read(PIECE_SIZE)
            self._head = b""
            self._ended = not data
            if text := self._decode(data):
                return text
        return ""

    def strict(self, text: str, *, line: int, column: int = 1) -> bytes:
        """The bytes that `text`, which begins at that place, was read from. Raises `FlawError` if some are no text."""
        try:
            return text.encode(self._codec)
        except UnicodeEncodeError as error:
            raise FlawError(self._no_text(text, error.start, line, column)) from None

    def raw(self, text: str) -> bytes:
        """The bytes that `text` was read from, whatever they are."""
        return text.encode(self._codec, self._errors)

    def _no_text(self, text: str, at: int, line: int, column: int) -> Flaw:
        below, beside = offset_place(text, at, line, column)
        return Flaw(
            code="encoding",
            rule=f"a byte is not valid {self._codec}",
            hint="Declare the encoding that the sender writes (often cp1252), or have it send UTF-8",
            shown=show(text[at : at + 1]),
            line=below,
            column=beside,
        )

    def _decode(self, data: bytes) -> str:
        try:
            return self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise Flaw(
                code="encoding",
                rule=f"the file ends inside a {self._codec} character",
                hint="The file was cut short: have it sent again",
                shown=error.object[error.start :].hex(),
            ).spoils_file() from None


def read_head(source: ByteSource, size: int) -> bytes:
    """The first `size` bytes, fewer only if the stream is shorter: a pipe may hand them over one by one."""
    head = b""
    while len(head) < size and (data := source.read(size - len(head))):
        head += data
    return head


def sniff(head: bytes) -> tuple[str, bytes]:
    """The encoding that the first bytes prove, with its byte order mark; empty if they prove none."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding, mark
    if len(head) >= 8 and (not any(head[1:4] + head[5:8]) or not any(head[0:3] + head[4:7])):
        return "utf-32", b""
    pairs = len(head) // 2
    if pairs >= 4 and not any(head[1 : pairs * 2 : 2]) and all(head[0 : pairs * 2 : 2]):
        return "utf-16-le", b""
    if pairs >= 4 and not any(head[0 : pairs * 2 : 2]) and all(head[1 : pairs * 2 : 2]):
        return "utf-16-be", b""
    return "", b""


def lines(characters: Characters, *, limit: int, newline: str) -> Iterator[str]:
    r"""Lines with their ends, cut at `limit` + 1 characters. `newline` is "" for any of \\n, \\r, \\r\\n, or "\\n"."""
    rest = ""
    skipping = False
    while piece := characters.read():
        # The last line goes round again even when it ends in \r: its \n may come with the next piece.
        *whole, rest = io.StringIO(rest + piece, newline=newline)
        if skipping and whole:
            del whole[0]
            skipping = False
        for line in whole:
            yield line if len(line) <= limit else line[: limit + 1]
        if not skipping and len(rest) > limit:
            yield rest[: limit + 1]
            skipping = True
        if skipping:
            rest = rest[-1:]
    if rest and not skipping:
        yield rest


def offset_place(text: str, at: int, line: int, column: int) -> tuple[int, int]:
    """Line and column of `text[at]`, where `text` begins at `line` and `column`."""
    breaks = text.count("\n", 0, at)
    return (line + breaks, at - text.rfind("\n", 0, at)) if breaks else (line, column + at)


def _settle(head: bytes, declared: Encoding) -> tuple[str, bytes]:
    """The codec to use and the byte order mark to drop, or a refusal where bytes and declaration contradict."""
    proven, mark = sniff(head)
    if declared == "utf-16" and not head:
        return "utf-16-le", b""
    if declared == "utf-16":
        if not proven.startswith("utf-16"):
            raise _contradiction(declared, proven or "no byte order mark", head)
        return proven, mark
    if proven and proven != declared and (mark or not declared.startswith("utf-16")):
        raise _contradiction(declared, proven, head)
    return declared, mark


def _contradiction(declared: str, proven: str, head: bytes) -> Exception:
    return Flaw(
        code="encoding",
        rule=f"the file is declared {declared} but its first bytes say {proven}",
        hint=f"Set encoding to {proven}"
        if proven.startswith("utf-")
        else "Set utf-16-le or utf-16-be, or have a mark sent",
        shown=head[:4].hex(" "),
        line=1,
        column=1,
    ).spoils_file()
