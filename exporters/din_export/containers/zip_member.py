"""Where a stored (not compressed) member of a zip archive begins, so that it can be read in place."""
from __future__ import annotations

import struct
import zipfile

from ..errors import ExportError

_LOCAL_HEADER = 30


def open_zip(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise ExportError(
            f"{path}: not a complete zip archive ({error}); the file is cut or of another kind"
        ) from error


def data_offset(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int | None:
    """None when the member is compressed."""
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    with open(archive.filename, "rb") as file:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER)
    name_length, extra_length = struct.unpack_from("<HH", header, 26)
    return member.header_offset + _LOCAL_HEADER + name_length + extra_length
