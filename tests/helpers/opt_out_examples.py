"""Files that state opt-out signals: RSL licences, and images with XMP metadata."""

from __future__ import annotations

import io

from PIL import Image, PngImagePlugin


def licence(terms: str, url: str = "/") -> str:
    return f'<content url="{url}"><license>{terms}</license></content>'


def rsl(*contents: str) -> bytes:
    return f'<rsl xmlns="https://rslstandard.org/rsl">{"".join(contents)}</rsl>'.encode()


VOCABULARY = "http://ns.useplus.org/ldf/vocab/"


def packet(value: str, form: str = "attribute") -> bytes:
    inside = {
        "attribute": f'plus:DataMining="{value}"/>',
        "element": f"><plus:DataMining>{value}</plus:DataMining></rdf:Description>",
        "resource": f'><plus:DataMining rdf:resource="{value}"/></rdf:Description>',
    }[form]
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" '
        f'{inside}</rdf:RDF></x:xmpmeta>{" " * 200}<?xpacket end="w"?>'
    ).encode()


def image_with(xmp: bytes, kind: str, compressed: bool = False) -> bytes:
    """An image file that holds an XMP packet."""
    file = io.BytesIO()
    image = Image.new("RGB", (64, 48), "teal")
    options: dict[str, object] = {"xmp": xmp}
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=compressed)
        options = {"pnginfo": info}
    elif kind == "TIFF":
        options = {"tiffinfo": {700: xmp}}
    image.save(file, kind, **options)
    return file.getvalue()
