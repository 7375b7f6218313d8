"""A store in a bucket on MinIO or any S3 service, through the `minio` package.

`basekamp.storage.s3_access` lists the environment variables that are read.

The SHA-256 lies in the object's metadata (x-amz-meta-sha256). A put first asks whether the key is there, then
writes with `If-None-Match: *`, so of two writers one wins. Files over 8 MiB go up in parts, four at a time, and
carry the condition on the request that completes them; what is over 16 MiB comes down in pieces, four at a time,
where one stream is not quick (`basekamp.storage.s3_transfer`).
What fails for a moment is tried again for a minute (`basekamp.storage.pool`); so is a read whose SHA-256 is wrong,
until the same wrong bytes have come three times: then they lie there. A create whose answer was lost finds its own
bytes there and is fine. A service that ignores the condition, as old MinIO
releases do, still refuses keys that are there, but two writers at the same moment can overwrite each other.
A writer killed between two parts leaves parts that no listing shows; a lifecycle rule of the bucket removes them.
"""

import copy
import io
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO
from xml.etree.ElementTree import ParseError

from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError, SSLError

from basekamp.errors import ChecksumError, InputError, KeyExistsError, KeyMissingError, StoreDownError, StoreError
from basekamp.storage.pool import PATIENT, QUICK, Backoff, Patience
from basekamp.storage.protocol import (
    BoundedBuffer,
    Entry,
    check_key,
    check_prefix,
    copy_stream,
    is_key,
    opened,
    whole_file,
)
from basekamp.storage.s3_access import AWS_KEYS, MINIO_KEYS, connect, describe, read_access, split_url
from basekamp.storage.s3_transfer import BROKEN, Transfer

_CREATE_TRIES = 4
_SAME_DAMAGE = 3  # a flipped bit in the network hits elsewhere the next time
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload"}
_REFUSED = {"AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
_ELSEWHERE = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
_FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"}
_FAILURES = (MinioException, HTTPError, ParseError, ValueError)


class S3Store:
    """A store below a bucket's prefix; `url` is `s3://bucket/prefix` or `minio://bucket/prefix`."""

    def __init__(self, url: str, *, patience: Patience = PATIENT) -> None:
        scheme, self._bucket, prefix = split_url(url)
        self.url = f"{scheme}://{self._bucket}/{prefix}".rstrip("/")
        self._prefix = prefix and prefix + "/"
        self._access = read_access(scheme)
        self._use(patience)

    def _use(self, patience: Patience) -> None:
        self._patience = patience
        self._client = connect(self._access, patience)
        self._transfer = Transfer(self._client, self._bucket, patience.deadline_seconds)

    def put(self, key: str, source: bytes | Path) -> None:
        """Create `key`; the same bytes already there are fine, other bytes are a `KeyExistsError`.

        A file is read twice, for the checksum and for the upload, and must not change meanwhile.
        """
        check_key(key)
        with opened(source) as stream, self._explained("write", key):
            digest = copy_stream(stream)
            for _ in range(_CREATE_TRIES):
                if self._holds(key, digest) or self._create(key, stream, digest):
                    return
            raise StoreError(f"other writers are at {self._where(key)} in the same moment: try again.")

    def get(self, key: str, *, most_bytes: int | None = None) -> bytes:
        """Read all bytes of `key`, verified; more than `most_bytes` are an `InputError`."""
        content = BoundedBuffer(key, most_bytes)
        with self._explained("read", check_key(key)):
            self._read(key, content)
        return content.getvalue()

    def fetch(self, key: str, path: Path, *, durable: bool = True) -> None:
        """Stream `key` to the file `path`, which appears whole and verified or not at all."""
        with self._explained("read", check_key(key)), whole_file(path, durable=durable) as target:
            self._read(key, target)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List keys that start with the string `prefix`, sorted, also those without a checksum."""
        start = self._prefix + check_prefix(prefix)
        with self._explained("list"):
            found = self._client.list_objects(self._bucket, prefix=start, recursive=True)
            rows = [Entry(each.object_name[len(self._prefix) :], each.size, each.last_modified) for each in found]
        # Not every service lists in key order: SeaweedFS and S3 Express do not.
        return iter(sorted(row for row in rows if is_key(row.key)))

    def keys(self, prefix: str = "", suffix: str = "") -> list[str]:
        """The keys alone that start and end so, sorted."""
        return [entry.key for entry in self.entries(prefix) if entry.key.endswith(suffix)]

    def delete(self, key: str) -> None:
        """Remove `key`; nothing there is fine."""
        with suppress(KeyMissingError), self._explained("delete", check_key(key)):
            self._client.remove_object(self._bucket, self._prefix + key)

    def check(self) -> None:
        """List, write, read back and delete a hidden probe; a `StoreError` says in 5 s what is wrong."""
        quick = copy.copy(self)
        quick._use(QUICK)
        quick._probe(f".tmp/check-{uuid.uuid4().hex}")

    def _probe(self, key: str) -> None:
        content = io.BytesIO(b"basekamp")
        digest = copy_stream(content)
        with self._explained("list"):
            next(self._client.list_objects(self._bucket, prefix=self._prefix, recursive=True), None)
        with self._explained("write", key):
            self._create(key, content, digest)
        with self._explained("read", key):
            self._read(key, io.BytesIO())
        with self._explained("delete", key):
            self._client.remove_object(self._bucket, self._prefix + key)

    def _create(self, key: str, stream: BinaryIO, digest: str) -> bool:
        """Write the bytes; False when the service says that someone was faster, which may be a try of our own."""
        try:
            self._transfer.upload(self._prefix + key, stream, digest)
        except S3Error as error:
            if error.code not in _TAKEN:
                raise
            return False
        return True

    def _holds(self, key: str, digest: str) -> bool:
        """Tell whether the key is there; with other bytes it is a `KeyExistsError`."""
        try:
            status = self._client.stat_object(self._bucket, self._prefix + key)
        except S3Error as error:
            if error.code == "NoSuchKey":
                return False
            raise
        if status.metadata.get("x-amz-meta-sha256") != digest:
            raise KeyExistsError(
                f"{self._where(key)} already holds other bytes and is never overwritten: choose another key."
            )
        return True

    def _read(self, key: str, target: BinaryIO) -> None:
        """Write the bytes of `key` to `target`, again from the start until they are those that were put."""
        backoff, seen = Backoff(self._patience.deadline_seconds), []
        while True:
            if target.tell():  # a file that was cut to nothing is written to the disk when it is closed
                target.seek(0)
                target.truncate()
            try:
                promised, held = self._transfer.download(self._prefix + key, target)
            except BROKEN:
                if not backoff.wait():
                    raise
                continue
            if held == promised:
                return
            seen.append(held)
            if promised is None or seen.count(held) == _SAME_DAMAGE or not backoff.wait():
                raise self._unverified(key, promised)

    def _unverified(self, key: str, promised: str | None) -> ChecksumError:
        what = (
            "has no checksum, so basekamp did not write it"
            if promised is None
            else "is damaged: its SHA-256 is not the one that was written"
        )
        return ChecksumError(f"{self._where(key)} {what}; delete it and put it again from a good copy.")

    def _where(self, key: str | None = None) -> str:
        name = "" if key is None else f", key {self._prefix + key!r}"
        return f"bucket {self._bucket!r}{name} at {self._access.endpoint}"

    @contextmanager
    def _explained(self, verb: str, key: str | None = None) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except _FAILURES as error:
            raise self._explain(error, verb, self._where(key)) from error

    def _explain(self, error: Exception, verb: str, where: str) -> StoreError:
        code = getattr(error, "code", None) or type(error).__name__
        if not re.fullmatch("[A-Za-z]{1,64}", str(code)):  # a service may answer with anything, also what was sent
            code = "no code of S3"
        endpoint = self._access.endpoint
        if code == "NoSuchKey":
            return KeyMissingError(f"nothing lies under {where}: list the store to see its keys.")
        if code == "NoSuchBucket":
            return StoreError(
                f"cannot {verb} {where}: the bucket does not exist; create it, for example with "
                f"`aws s3 mb s3://{self._bucket} --endpoint-url {endpoint}`, or name another."
            )
        if code in _REFUSED:
            return StoreError(
                f"cannot {verb} {where}: access was refused ({code}); check the credentials in "
                f"{' and '.join(AWS_KEYS)} (or {' and '.join(MINIO_KEYS)}) and what they may do."
            )
        if code in _ELSEWHERE:
            return StoreError(
                f"cannot {verb} {where}: the bucket is in another region than {self._access.region} "
                f"({code}); set AWS_REGION to its own."
            )
        if code == "RequestTimeTooSkewed":
            return StoreError(
                f"cannot {verb} {where}: the clock of this machine, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, is not the "
                "service's; set it right."
            )
        if code in _FULL:
            return StoreError(
                f"cannot {verb} {where}: no space is left there ({code}); make room, for example with "
                "`basekamp gc --yes`, or name another store."
            )
        if isinstance(error, HTTPError):
            kind = StoreError if isinstance(error, SSLError) else StoreDownError
            return kind(
                f"cannot {verb} {where}: no connection ({describe(error)}); start the service, or correct "
                f"the endpoint in {self._access.endpoint_variable}."
            )
        if _status(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return StoreDownError(f"cannot {verb} {where}: the service fails ({code}); see its log for the cause.")
        if isinstance(error, S3Error):
            return StoreError(f"cannot {verb} {where}: the service answered {code}; see its log for the cause.")
        return StoreError(
            f"cannot {verb} {where}: the answer is not one of S3 ({code}); see the log of the service, or "
            f"correct the endpoint in {self._access.endpoint_variable}."
        )


def _status(error: Exception) -> int:
    """The HTTP status behind an error of minio's; 0 for none."""
    told = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status", 0)
    return told if isinstance(told, int) else 0
