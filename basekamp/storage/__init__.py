"""Where records live: a folder, or a bucket on MinIO or any S3 service, behind one small protocol.

`open_store` turns what a user wrote into a store; which environment variables an S3 store reads is listed in
`basekamp.storage.s3_access`.
"""

from pathlib import Path
from urllib.parse import unquote

from basekamp.errors import InputError
from basekamp.storage.protocol import Entry, Store, check_key

__all__ = ["Entry", "Store", "check_key", "open_store"]

_ALLOWED = "use a folder, s3://bucket/prefix or minio://bucket/prefix"


def open_store(url: str) -> Store:
    """Open the store at `url`: `./folder`, `/folder`, `file:///folder`, `s3://bucket/prefix`, `minio://…`.

    Nothing is created and no server is asked until the first call; `Store.check` asks.

    Raises:
        InputError: the URL, or an S3 endpoint in the environment, cannot be read.
        StoreError: credentials for an S3 store are missing from the environment.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme in ("s3", "minio"):
        from basekamp.storage.s3 import S3Store  # minio takes longer to import than a listing to print

        return S3Store(url)
    from basekamp.storage.folder import FolderStore

    if separator and scheme == "file":
        if not rest.startswith("/"):
            raise InputError(f"store {url!r} is not allowed: a file URL has three slashes, as in file:///folder.")
        return FolderStore(Path(unquote(rest)))
    if separator:
        raise InputError(f"stores of the kind {scheme!r} are not known: {_ALLOWED}.")
    if not url or "\0" in url:
        raise InputError(f"store {url!r} is not allowed: {_ALLOWED}.")
    return FolderStore(Path(url).expanduser())
