"""Records of Mendeley Data: a listing with address, size and SHA-256 of each file.

The host sometimes answers an error as if all were well; then it is asked again.
"""

from pathlib import Path

from requests import Response

from stlib.download import ask
from stlib.manifest import File, read_manifest, write_manifest


def published(url: str, kept: Path) -> list[File]:
    """Return the files of a record; its listing is asked for once, and kept.

    Parameters
    ----------
    url
        ``https://data.mendeley.com/public-api/datasets/<record>/files?folder_id=root&version=<n>``.
    kept
        The manifest that is written, and read from then on.

    Raises
    ------
    FileNotFoundError
        If the listing cannot be had.
    ValueError
        If it is no listing, or names a file outside of the folder.
    """
    if not kept.exists():
        write_manifest(kept, ask(url, _listed))
    return read_manifest(kept)


def _listed(response: Response) -> list[File]:
    """Read a listing."""
    listing = response.json()
    try:
        return [
            File(
                item["filename"],
                item["content_details"]["size"],
                sha256=item["content_details"]["sha256_hash"],
                url=item["content_details"]["download_url"],
            )
            for item in listing
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{response.url}: a listing has filename, size, sha256_hash and download_url of each file; found "
            f"{str(listing)[:100]}. Run `make data` again later"
        ) from error
