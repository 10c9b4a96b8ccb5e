"""The IPTC/PLUS property `plus:DataMining` (IPTC Photo Metadata Standard 2023.1) in an image file.

XMP is read from JPEG (APP1, also extended), PNG (iTXt) and WebP (chunk `XMP `); in every other
format, such as TIFF, AVIF and GIF, packets are found by scanning, as the XMP specification allows.
Damaged metadata is ignored and never makes an image fail.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from pipeline.web.opt_out.signals import Signal
from pipeline.web.opt_out.xml import MAX_BYTES, parse_xml

PLUS = "http://ns.useplus.org/ldf/xmp/1.0/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"

_PROPERTY = f"{{{PLUS}}}DataMining"
_NAMES = tuple("DataMining".encode(coding) for coding in ("ascii", "utf-16-le", "utf-16-be"))
_JPEG_MAIN = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_EXTENDED = b"http://ns.adobe.com/xmp/extension/\0"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEYWORD = b"XML:com.adobe.xmp\0"
_MAX_PACKETS = 16
_ENDS = {b"<x:xmpmeta": b"</x:xmpmeta>", b"<rdf:RDF": b"</rdf:RDF>"}


def data_mining_signals(data: bytes) -> list[Signal]:
    """Return the signal in the bytes of an image file, if its metadata prohibits training."""
    for count, packet in enumerate(_packets(data)):
        if count >= _MAX_PACKETS:
            break
        if any(name in packet for name in _NAMES):
            for value in _values(packet):
                if _prohibits(value):
                    return [Signal("plus-data-mining", f"XMP of the file, {_short(value)}")]
    return []


def _short(value: str) -> str:
    return " ".join(value.rpartition("/")[2].split())[:80]


def _prohibits(value: str) -> bool:
    """Return True if a value (URI, code or label) prohibits training."""
    text = value.strip().upper()
    return text.startswith("PROHIBITED") or text.rpartition("/")[2].startswith("DMI-PROHIBITED")


def _values(packet: bytes) -> Iterator[str]:
    """Yield the values of the property in a packet, from attributes, elements and resources."""
    root = parse_xml(packet[max(0, packet.find(b"<")) :].rstrip(b"\0"), recover=True)
    if root is None:
        return
    for element in _described(root):
        if _PROPERTY in element.attrib:
            yield str(element.attrib[_PROPERTY])
        for child in element.iterchildren(_PROPERTY):
            yield str(child.get(f"{{{RDF}}}resource") or "".join(child.itertext()))


def _described(root: Any) -> Iterator[Any]:
    """Yield the elements that describe the file itself, not a file embedded in it; all elements if
    the packet is too damaged to tell."""
    found = False
    for rdf in root.iter(f"{{{RDF}}}RDF"):
        found = True
        yield from rdf.iterchildren()
        break
    if not found:
        yield from root.iter()


def _packets(data: bytes) -> Iterator[bytes]:
    if data[:2] == b"\xff\xd8":
        yield from _jpeg_packets(data)
    elif data[:8] == _PNG_SIGNATURE:
        yield from _png_packets(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        yield from _webp_packets(data)
    elif any(name in data for name in _NAMES):
        yield from _scanned_packets(data)


def _jpeg_packets(data: bytes) -> Iterator[bytes]:
    extended: dict[bytes, dict[int, bytes]] = {}
    size = 0
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a segment
            position += 2
            continue
        if marker in (0xDA, 0xD9):  # the image itself, or its end
            break
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        if marker == 0xE1:
            segment = data[position + 4 : end]
            if segment.startswith(_JPEG_MAIN):
                yield segment[len(_JPEG_MAIN) :]
            elif segment.startswith(_JPEG_EXTENDED) and size < MAX_BYTES:
                # 32 digits that identify the packet, its whole length, and the offset of this piece
                head = len(_JPEG_EXTENDED)
                offset = int.from_bytes(segment[head + 36 : head + 40])
                extended.setdefault(segment[head : head + 32], {})[offset] = segment[head + 40 :]
                size += len(segment)
        position = max(end, position + 4)
    for pieces in extended.values():
        yield b"".join(pieces[offset] for offset in sorted(pieces))


def _png_packets(data: bytes) -> Iterator[bytes]:
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4])
        start, end = position + 8, position + 8 + length
        if data[position + 4 : position + 8] == b"iTXt" and data.startswith(_PNG_KEYWORD, start):
            yield from _text_chunk(data[start + len(_PNG_KEYWORD) : end])
        position = end + 4


def _text_chunk(chunk: bytes) -> Iterator[bytes]:
    """Yield the text of an iTXt chunk, which follows the keyword, flags and two short texts."""
    parts = chunk[2:].split(b"\0", 2)
    if len(parts) < 3:
        return
    if chunk[0] == 0:
        yield parts[2]
        return
    try:
        yield zlib.decompressobj().decompress(parts[2], MAX_BYTES)
    except zlib.error:
        return


def _webp_packets(data: bytes) -> Iterator[bytes]:
    position = 12
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"XMP ":
            yield data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


def _scanned_packets(data: bytes) -> Iterator[bytes]:
    position = 0
    for _ in range(_MAX_PACKETS):
        starts = {data.find(start, position): start for start in _ENDS}
        starts.pop(-1, None)
        if not starts:
            return
        first = min(starts)
        end_tag = _ENDS[starts[first]]
        end = data.find(end_tag, first)
        if end < 0:
            return
        yield data[first : end + len(end_tag)]
        position = end + len(end_tag)
