"""Members of encrypted archives: .zip with AES, which Python's own module does not open, read by 7-Zip.

Only what is asked for is read, and written where the caller says: names in an archive decide nothing. What is
damaged is noticed, by the checksum of each member and by the code that AES adds to it.
"""

import gzip
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from stlib.download import make_sure_of_room
from stlib.paths import replacing

PROGRAMS = ("7zz", "7z", "7za")


def unpack(archive: Path, password: str, wanted: Mapping[str, str], folder: Path) -> None:
    """Bring members of an encrypted .zip into `folder`; those that are there are kept.

    Parameters
    ----------
    wanted
        End of a member's path -> path below `folder`. A member ``*.gz`` is decompressed where the path it
        gets is not called so.

    Raises
    ------
    FileNotFoundError
        If 7-Zip is not installed, or the archive lacks a member.
    ValueError
        If the archive is damaged, the password is another one, or several members end alike.
    OSError
        If the disk has too little room.
    """
    missing = {end: path for end, path in wanted.items() if not (folder / path).exists()}
    if not missing:
        return
    members = {end: _member(archive, end) for end in missing}
    folder.mkdir(parents=True, exist_ok=True)
    make_sure_of_room(folder, sum(member.file_size for member in members.values()), archive.name)
    for end, path in missing.items():
        with replacing(folder / path) as temporary, open(temporary, "wb") as out:
            _decrypt(archive, password, members[end], out)
            if end.endswith(".gz") and not path.endswith(".gz"):
                _gunzip(archive, end, temporary)


def _member(archive: Path, end: str) -> zipfile.ZipInfo:
    """Return the member whose path ends so: names are not encrypted."""
    try:
        with zipfile.ZipFile(archive) as content:
            found = [item for item in content.infolist() if PurePosixPath(item.filename).match(end)]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archive}: a whole .zip; found a damaged one ({error}). Fetch it again") from error
    if not found:
        raise FileNotFoundError(
            f"{archive}: the archive has a member {end}; found none. Is it the archive of that name?"
        )
    if len(found) > 1:
        raise ValueError(
            f"{archive}: one member is called {end}; found {[item.filename for item in found]}. Name it with "
            "its folder"
        )
    return found[0]


def _decrypt(archive: Path, password: str, member: zipfile.ZipInfo, out) -> None:
    """Write the content of a member, which 7-Zip checks."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise FileNotFoundError(
            f"{archive}: to open an archive with AES needs 7-Zip; found none of {', '.join(PROGRAMS)}. "
            "Install 7zip, or name a folder that has the unpacked files with DATA="
        )
    command = [program, "x", "-so", "-spd", f"-p{password}", "--", str(archive), member.filename]
    out.flush()
    done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
    if done.returncode or Path(out.name).stat().st_size != member.file_size:
        reason = " ".join(done.stderr.split())[:200]
        raise ValueError(
            f"{archive}: {member.filename} opens with the published password; found '{reason}'. Delete the "
            "archive and run `make data` again"
        )


def _gunzip(archive: Path, end: str, path: Path) -> None:
    """Replace a small compressed file by its content."""
    try:
        path.write_bytes(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{archive}: {end} is gzipped; found another content ({error})") from error
