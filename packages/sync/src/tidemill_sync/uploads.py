"""Go on inside a large object: the manifest keeps its upload and the parts that the target has taken."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, cast

from tidemill_core.errors import ObjectNotFound, StorageError
from tidemill_core.storage import ObjectInfo, ObjectStore, Resuming, SentPart, Upload
from tidemill_core.telemetry import get_logger

from tidemill_sync.manifests._base import Manifest

log = get_logger(__name__)
_PART_BYTES = 8 << 20
_MOST_PARTS = 10_000
_MEBIBYTE = 1 << 20


def part_bytes(size_bytes: int) -> int:
    """Choose the bytes of a part so that no object has too many: 8 MiB up to 78 GiB, whole MiB beyond."""
    return max(_PART_BYTES, -(-size_bytes // _MOST_PARTS // _MEBIBYTE) * _MEBIBYTE)


class Uploads:
    """Uploads of one job, those that earlier runs began included.

    An upload is gone on with only for the same version, size and description of the
    source; any other one of that key is aborted. Only the holder of the job's lease may use it.

    Args:
        manifest: Where they are noted.
        job: The job.
        target: Where they are.
        least_bytes: Objects up to this size are not worth it.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        manifest: Manifest,
        job: str,
        target: ObjectStore,
        *,
        least_bytes: int = 64 << 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._manifest, self._job, self._target = manifest, job, target
        self._least_bytes, self._clock = least_bytes, clock

    def takes(self, source: ObjectInfo) -> bool:
        """Whether an object can be gone on with: it is large, the target resumes, and its version can be named."""
        is_large = source.size_bytes > self._least_bytes
        return is_large and source.etag is not None and hasattr(self._target, "put_upload")

    def put(
        self,
        source: ObjectInfo,
        read: Callable[[int, int], bytes],
        conditions: Mapping[str, Any],
        about: Mapping[str, Any],
    ) -> ObjectInfo:
        """Write an object by parts, and note each of them.

        Args:
            source: The version that is read.
            read: Gives its bytes [start, end).
            conditions: On which the target is written, as for `ObjectStore.put`.
            about: Content type and metadata.

        Raises:
            PreconditionFailed: The target has changed.
        """
        key = source.key
        facts = {
            "etag": source.etag,
            "size_bytes": source.size_bytes,
            "part_bytes": part_bytes(source.size_bytes),
            "about": json.dumps({name: about[name] and _plain(about[name]) for name in sorted(about)}, sort_keys=True),
        }
        upload_id, parts = self._known(key, facts)

        def began(new_id: str) -> None:
            self._manifest.drop_pieces(self._job, key)
            text = json.dumps({**facts, "upload_id": new_id, "began_at": self._clock()})
            self._manifest.save_piece(self._job, key, 0, text)

        def sent(part: SentPart) -> None:
            self._manifest.save_piece(self._job, key, part.number, json.dumps(asdict(part)))

        upload = Upload(
            size_bytes=source.size_bytes,
            part_bytes=cast("int", facts["part_bytes"]),
            read=read,
            began=began,
            sent=sent,
            upload_id=upload_id,
            parts=parts,
        )
        if parts:
            log.info("upload_resumed", key=key, parts=len(parts), of=upload.count)
        written = cast("Resuming", self._target).put_upload(key, upload, **conditions, **about)
        self._manifest.drop_pieces(self._job, key)
        return written

    def sweep(self, older_than_s: float) -> int:
        """Abort the uploads that were begun so long ago; gives how many. One that cannot be aborted stays noted."""
        if not hasattr(self._target, "abort_upload"):
            return 0
        dropped = 0
        for key, text in self._manifest.begun(self._job):
            known = json.loads(text)
            if self._clock() - known["began_at"] < older_than_s:
                continue
            try:
                self._drop(key, known["upload_id"])
            except StorageError as error:
                log.warning("upload_not_aborted", key=key, error=str(error))
            else:
                dropped += 1
        return dropped

    def _known(self, key: str, facts: Mapping[str, object]) -> tuple[str | None, dict[int, SentPart]]:
        pieces = self._manifest.pieces(self._job, key)
        if not pieces or pieces[0][0] != 0:
            return None, {}
        known = json.loads(pieces[0][1])
        if any(known.get(name) != value for name, value in facts.items()):
            self._drop(key, known["upload_id"])
            return None, {}
        return known["upload_id"], {number: SentPart(**json.loads(text)) for number, text in pieces[1:]}

    def _drop(self, key: str, upload_id: str) -> None:
        try:
            cast("Resuming", self._target).abort_upload(key, upload_id)
        except ObjectNotFound:
            log.info("upload_was_gone", key=key)
        self._manifest.drop_pieces(self._job, key)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
