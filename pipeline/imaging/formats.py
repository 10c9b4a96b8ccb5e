"""Detects image formats and other file types by their first bytes."""

from __future__ import annotations

import struct

_READ: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\1\0", "ICO"),
    (b"\xff\x0a", "JXL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    *((b"P%d%c" % (kind, space), "PPM") for kind in range(1, 7) for space in b"\n\r\t #"),
)  # fmt: skip

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_BRANDS: tuple[tuple[frozenset[bytes], str], ...] = (
    (frozenset({b"avif", b"avis"}), "AVIF"),
    (frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}), "HEIC"),
    (frozenset({b"mif1", b"msf1", b"mif2"}), "HEIC"),
)
"""Formats by the brands of an ISO base media file (ISO/IEC 23008-12), in order of precedence."""

_OTHER: tuple[tuple[bytes, str], ...] = (
    (b"8BPS", "Photoshop (PSD)"),
    (b"II\xbc\1", "JPEG XR"),
    (b"II\xbc\0", "JPEG XR"),
    (b"BPG\xfb", "BPG"),
    (b"FLIF", "FLIF"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS texture"),
    (b"v/1\1", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"gimp xcf", "GIMP (XCF)"),
    (b"icns", "Apple icon (ICNS)"),
    (b"FUJIFILMCCD-RAW", "camera raw (RAF)"),
    (b"IIRO", "camera raw (ORF)"),
    (b"IIRS", "camera raw (ORF)"),
    (b"MMOR", "camera raw (ORF)"),
    (b"IIU\0", "camera raw (RW2)"),
    (b"FOVb", "camera raw (X3F)"),
    (b"\0MRM", "camera raw (MRW)"),
    (b"II\x1a\0\0\0HEAPCCDR", "camera raw (CRW)"),
    (b"\xd7\xcd\xc6\x9a", "Windows metafile (WMF)"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"AT&TFORM", "DjVu"),
    (b"SDPX", "DPX"),
    (b"XPDS", "DPX"),
    (b"SIMPLE  =", "FITS"),
    (b"P7\n", "PAM"),
    (b"Pf\n", "PFM"),
    (b"PF\n", "PFM"),
    (b"\x0a\5\1\x08", "PCX"),
    (b"\x01\xda", "SGI"),
    (b"\x59\xa6\x6a\x95", "Sun raster"),
    (b"/* XPM", "XPM"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"\x1aE\xdf\xa3", "Matroska video"),
    (b"FLV\1", "Flash video"),
    (b"OggS", "Ogg media"),
    (b"RIFF", "RIFF media"),
    (b"ID3", "MP3"),
    (b"{", "JSON"),
    (b"[", "JSON"),
)

_REDUCED, _SUB_IFDS, _DNG = 254, 330, 50706


def image_format(data: bytes) -> str | None:
    """Return the image format of a file by its first bytes; None if it is not supported, even with
    the optional packages."""
    for magic, name in _READ:
        if data.startswith(magic):
            return name
    if data[:4] in _TIFF:
        return None if _raw_photograph(data) else "TIFF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    brands = _brands(data)
    return next((name for known, name in _BRANDS if brands & known), None)


def other_format(data: bytes) -> str | None:
    """Return the name of a known file type that is not a supported image format, or None."""
    raw = _raw_photograph(data) if data[:4] in _TIFF else None
    if raw:
        return raw
    brands = _brands(data)
    if brands:
        return "camera raw (CR3)" if b"crx " in brands else "MP4 video"
    if data[4:8] in (b"moov", b"mdat", b"wide", b"free"):
        return "QuickTime video"
    if data[40:44] == b" EMF":
        return "Windows metafile (EMF)"
    if data[128:132] == b"DICM":
        return "DICOM"
    if data[-18:-2] == b"TRUEVISION-XFILE" or _is_old_tga(data):
        return "TGA"
    if data[:4] == b"\0\0\2\0":
        return "mouse pointer (CUR)"
    return next((name for magic, name in _OTHER if data.startswith(magic)), None)


def _is_old_tga(data: bytes) -> bool:
    """Return True if the first bytes look like a Truevision (TGA) image, which has no signature: it
    has no palette, a known type and a valid depth."""
    plain = data[1:2] == b"\0" and not any(data[3:8])
    return plain and data[2:3] in (b"\2", b"\3", b"\x0a", b"\x0b") and data[16:17] in (
        b"\x08", b"\x10", b"\x18", b"\x20"
    )  # fmt: skip


def _brands(data: bytes) -> frozenset[bytes]:
    """Return the major and compatible brands of an ISO base media file; empty if it is not one."""
    if data[4:8] != b"ftyp":
        return frozenset()
    end = min(int.from_bytes(data[:4]), len(data), 4096)
    return frozenset({data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))})


def _raw_photograph(data: bytes) -> str | None:
    """Return the name of a camera raw format based on TIFF, whose first page is a preview."""
    if data[8:10] == b"CR":
        return "camera raw (CR2)"
    tags = _first_tags(data)
    if _DNG in tags:
        return "camera raw (DNG)"
    if tags.get(_REDUCED) == 1 and _SUB_IFDS in tags:
        return "camera raw (TIFF)"
    return None


def _first_tags(data: bytes) -> dict[int, int]:
    """Return the tags of the first page of a TIFF (not BigTIFF), each with its first 32 bits."""
    order = "<" if data[:2] == b"II" else ">"
    found: dict[int, int] = {}
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (entries,) = struct.unpack_from(f"{order}H", data, start)
        for place in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, _count = struct.unpack_from(f"{order}HHI", data, place)
            (found[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data,
                                               place + 8)  # fmt: skip
    except struct.error:
        pass
    return found
