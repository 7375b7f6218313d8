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

HTTP = ("http", "https")
S3 = ("s3", "minio")


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
    import urllib3

    shown = without_secrets(source)
    timeout = urllib3.Timeout(connect=10, read=60)
    try:
        pool = urllib3.PoolManager(timeout=timeout, retries=urllib3.Retry(3, backoff_factor=0.2))
        with pool, pool.request("GET", source, preload_content=False) as answer:
            if answer.status != 200:
                raise InputError(f"{shown} answered {answer.status}: check the address and who may read it.")
            with target.open("wb") as file:
                shutil.copyfileobj(answer, file, 1 << 20)
    except urllib3.exceptions.HTTPError as error:
        raise InputError(f"{shown} cannot be fetched: check the address and the network.") from error


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
