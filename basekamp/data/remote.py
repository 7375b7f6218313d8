"""Sources that lie elsewhere: http(s) and S3, brought into a local folder."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from basekamp.errors import InputError, StoreError

if TYPE_CHECKING:
    from minio import Minio
    from urllib3 import BaseHTTPResponse, PoolManager

HTTP = ("http", "https")
S3 = ("s3", "minio")
PIECE = 1 << 16
TRIES = 5
"""How often a transfer may be cut without a piece more of it."""


def scheme_of(source: str) -> str:
    """Return `http`, `https`, `s3` or whatever stands before `://`, an empty string for a path."""
    scheme, separator, _ = source.partition("://")
    return scheme.lower() if separator else ""


def without_secrets(source: str) -> str:
    """Return the source as it may be shown and stored: a URL loses its user, password and query."""
    scheme, separator, rest = source.partition("://")
    if not separator:
        return source
    place, slash, path = rest.partition("/")
    shown = f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"
    return urlunsplit((*urlsplit(shown)[:3], "", "")) if scheme_of(source) in HTTP else shown


def download(source: str, directory: Path) -> Path:
    """Copy a remote source into the folder under its own file name.

    Raises: InputError when it is missing or names no file; StoreError when S3 cannot be reached.
    """
    is_http = scheme_of(source) in HTTP
    name = PurePosixPath(unquote(urlsplit(source).path) if is_http else _split_s3(source)[1]).name
    if not name:
        raise InputError(f"{without_secrets(source)} names no file: give the address of one data file.")
    target = directory / name
    if is_http:
        _download_http(source, target)
    else:
        _call_s3(source, lambda client, bucket, key: client.fget_object(bucket, key, str(target)))
    return target


def object_fingerprint(source: str) -> str:
    """Return 16 hex digits over the etag and size of an S3 object, without reading it."""
    stat = _call_s3(source, lambda client, bucket, key: client.stat_object(bucket, key))
    return hashlib.blake2b(f"{stat.etag} {stat.size}".encode(), digest_size=8).hexdigest()


def _download_http(source: str, target: Path) -> None:
    """Fetch a file; a transfer that is cut goes on where it stopped, or begins anew if the server cannot do that."""
    import urllib3

    shown = without_secrets(source)
    retries = urllib3.Retry(3, backoff_factor=0.2)
    timeout = urllib3.Timeout(connect=10, read=60)
    validator, stalled = "", 0
    with urllib3.PoolManager(timeout=timeout, retries=retries) as pool, target.open("wb") as out:
        while True:
            have = out.tell()
            try:
                with _request(pool, source, have, validator) as answer:
                    validator = _validator(answer)
                    if not _goes_on(answer, have):
                        _check_status(answer, shown)
                        out.seek(0)
                        out.truncate()
                    shutil.copyfileobj(answer, out, PIECE)
                return
            except urllib3.exceptions.HTTPError as error:
                stalled = 0 if out.tell() > have else stalled + 1
                if stalled == TRIES or isinstance(error, urllib3.exceptions.MaxRetryError):
                    raise InputError(f"{shown} cannot be fetched: check the address and the network.") from error


def _request(pool: "PoolManager", source: str, have: int, validator: str) -> "BaseHTTPResponse":
    """Ask for a file, or for what lies behind `have` bytes of the version that the validator names."""
    headers = {"Accept-Encoding": "identity"}
    if have and validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    return pool.request("GET", source, headers=headers, preload_content=False)


def _validator(answer: "BaseHTTPResponse") -> str:
    """Return what names this version of the file, empty where a rest of it cannot be asked for."""
    etag = answer.headers.get("ETag", "")
    is_packed = answer.headers.get("Content-Encoding", "identity") != "identity"
    return "" if is_packed or etag.startswith("W/") else etag or answer.headers.get("Last-Modified", "")


def _goes_on(answer: "BaseHTTPResponse", have: int) -> bool:
    return answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _check_status(answer: "BaseHTTPResponse", shown: str) -> None:
    if answer.status != 200:
        raise InputError(f"{shown} answered {answer.status}: check the address and who may read it.")


def _split_s3(source: str) -> tuple[str, str]:
    bucket, _, key = source.partition("://")[2].partition("/")
    if not bucket or not key or "@" in bucket:
        raise InputError(f"{without_secrets(source)} names no object: write s3://bucket/folder/file.csv.")
    return bucket, key


def _call_s3(source: str, call: "Callable[[Minio, str, str], Any]") -> Any:
    from minio.error import S3Error
    from urllib3.exceptions import HTTPError

    from basekamp.storage.s3_access import connect, describe, read_access

    bucket, key = _split_s3(source)
    access = read_access(scheme_of(source))
    try:
        return call(connect(access), bucket, key)
    except S3Error as error:
        raise InputError(
            f"object {key!r} of bucket {bucket!r} at {access.endpoint} cannot be read ({error.code}): "
            "check its name and the credentials."
        ) from error
    except HTTPError as error:
        raise StoreError(
            f"bucket {bucket!r} at {access.endpoint} cannot be reached ({describe(error)}): "
            f"check {access.endpoint_variable}."
        ) from error
    except ValueError as error:
        raise InputError(
            f"{without_secrets(source)} names no object ({error}): write s3://bucket/folder/file.csv."
        ) from error
