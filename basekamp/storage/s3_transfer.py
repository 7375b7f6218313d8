"""How an object goes to an S3 service and comes from it: what is large in parts, four at a time.

A download begins with one stream, which is the quickest within a machine and between near ones; where it is not, or
breaks off, the rest comes in pieces.

The service compares each part with a checksum before it keeps it: a CRC-32 if it says that it knows them, as Amazon,
MinIO and SeaweedFS do, else an MD5, which takes seven times as long. Hashes and sockets work without Python's lock.
"""

import base64
import io
import time
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from typing import Any, BinaryIO
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

from minio import Minio
from minio.error import MinioException, S3Error
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from basekamp.storage.pool import CRC32, THREADS, Backoff
from basekamp.storage.protocol import BLOCK_BYTES, copy_blocks
from basekamp.threads import in_threads

PART_BYTES = 8 << 20  # goes up at once; memory is at most THREADS + 1 of them
PIECE_BYTES = 16 << 20  # comes down at once; memory is at most THREADS + 1 of them
QUICK_BYTES_A_SECOND = 128 << 20  # more than one connection gives from afar
ALGORITHM = "CRC32"
BROKEN = (ProtocolError, ReadTimeoutError)
_MOST_PARTS = 10_000  # the limit of S3


@dataclass(frozen=True)
class Transfer:
    """Uploads to a bucket and downloads from it; a piece that breaks off is read again for `deadline_seconds`."""

    client: Minio
    bucket: str
    deadline_seconds: float

    def upload(self, name: str, stream: BinaryIO, digest: str) -> None:
        """Create an object of all that `stream` holds, with its SHA-256 `digest` in the metadata."""
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        headers = {"Content-Type": "application/octet-stream", "x-amz-meta-sha256": digest}
        part_bytes = max(PART_BYTES, -(-size // _MOST_PARTS))
        if size <= part_bytes:
            self._ask("PUT", name, body=stream.read(), headers=headers)
            return
        answer = self._ask("POST", name, {"uploads": ""}, headers=headers | {"x-amz-checksum-algorithm": ALGORITHM})
        upload = {"uploadId": _upload_id(answer)}
        send = partial(self._part, name, upload, answer.headers.get("x-amz-checksum-algorithm") == ALGORITHM)
        try:
            with closing(in_threads((partial(send, *part) for part in _numbered(stream, part_bytes)), THREADS)) as sent:
                self._complete(name, upload, sent)
        except Exception:
            with suppress(MinioException, HTTPError):  # the first error is the one to tell
                self._ask("DELETE", name, upload)
            raise

    def _part(self, name: str, upload: dict[str, str], knows_crc32: bool, number: int, content: bytes) -> Element:
        """Send a part; give what completes it."""
        checksum = base64.b64encode(zlib.crc32(content).to_bytes(4)).decode()
        headers = {CRC32: checksum} if knows_crc32 else {}
        answer = self._ask("PUT", name, {"partNumber": str(number), **upload}, body=content, headers=headers)
        told = {"PartNumber": str(number), "ETag": answer.headers.get("ETag", "")}
        part = Element("Part")
        for tag, text in (told | ({"ChecksumCRC32": checksum} if knows_crc32 else {})).items():
            SubElement(part, tag).text = text
        return part

    def _complete(self, name: str, upload: dict[str, str], parts: Iterable[Element]) -> None:
        whole = Element("CompleteMultipartUpload", xmlns="http://s3.amazonaws.com/doc/2006-03-01/")
        whole.extend(parts)
        answer = self._ask("POST", name, upload, body=tostring(whole), headers={"Content-Type": "application/xml"})
        if not fromstring(answer.data).tag.endswith("CompleteMultipartUploadResult"):  # S3 says 200 before it is done
            raise S3Error.fromxml(answer)

    def _ask(self, method: str, name: str, query: dict[str, str] | None = None, **sent: Any) -> BaseHTTPResponse:
        # Minio.put_object cannot send the checksums of parts; this is what it is made of.
        answer: BaseHTTPResponse = self.client._execute(method, self.bucket, name, query_params=query, **sent)
        return answer

    def download(self, name: str, target: BinaryIO) -> tuple[str | None, str]:
        """Write an object to `target`; give the SHA-256 that its metadata promise, and that of what came."""
        response = self._open(name)
        with closing(self._coming(name, response)) as blocks:
            return response.headers.get("x-amz-meta-sha256"), copy_blocks(blocks, target)

    def _coming(self, name: str, response: BaseHTTPResponse) -> Generator[bytes, None, None]:
        """All blocks in order: of a large object from one stream as long as it is quick, the rest in pieces at once."""
        size, read, begin = int(response.headers.get("Content-Length", 0)), 0, time.monotonic()
        in_pieces = size > PIECE_BYTES and response.headers.get("Accept-Ranges") == "bytes"
        with closing(response):
            try:
                for block in response.stream(BLOCK_BYTES, decode_content=False):
                    read += len(block)
                    yield block
                    quick_bytes = QUICK_BYTES_A_SECOND * (time.monotonic() - begin)
                    if in_pieces and PIECE_BYTES <= read < quick_bytes:
                        break
            except BROKEN:
                if not (in_pieces and read >= PIECE_BYTES):
                    raise
        pieces = (partial(self._piece, name, start) for start in range(read, size, PIECE_BYTES))
        with closing(in_threads(pieces, THREADS)) as rest:
            yield from chain.from_iterable(rest)

    def _piece(self, name: str, start: int) -> list[bytes]:
        backoff = Backoff(self.deadline_seconds)
        while True:
            try:
                with closing(self._open(name, offset=start, length=PIECE_BYTES)) as response:
                    return list(response.stream(BLOCK_BYTES, decode_content=False))
            except BROKEN:
                if not backoff.wait():
                    raise

    def _open(self, name: str, **span: int) -> BaseHTTPResponse:
        response: BaseHTTPResponse = self.client.get_object(self.bucket, name, **span)
        return response


def _upload_id(answer: BaseHTTPResponse) -> str:
    found = fromstring(answer.data).findtext("{*}UploadId")
    if not found:
        raise ValueError("the answer names no upload")
    return found


def _numbered(stream: BinaryIO, part_bytes: int) -> Iterator[tuple[int, bytes]]:
    return zip(count(1), iter(partial(stream.read, part_bytes), b""))
