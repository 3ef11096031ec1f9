"""A fetch that kills itself inside a commit; run as a script by test_crash.

Arguments: mode (together: as shipped; apart: state first, rows in a second transaction),
number of the commit to die in, store URL, base URL.
"""

import os
import signal
import sys

from tidemill_ingest_api.config import SourceConfig
from tidemill_ingest_api.fetching.client import Client
from tidemill_ingest_api.fetching.fetch import run_stream
from tidemill_ingest_api.stores import open_store, postgres, sqlite
from tidemill_ingest_api.stores._base import Written

SOURCE = {
    "source": "fake",
    "base_url": "env:UPSTREAM",
    "streams": [
        {
            "name": "things",
            "path": "/link",
            "paginate": {"type": "link_header"},
            "conditional": "etag",
            "primary_key": ["id"],
            "batch_rows": 2,
            "fields": {"id": "int64", "name": "string"},
        }
    ],
}


def dying(writer_type, mode, at):
    class Dying(writer_type):
        count = 0

        def commit(self, commit):
            self.count += 1
            if mode == "together":
                with self.transaction():
                    written = self.write_rows(commit)
                    self.die()
                    self.write_state(commit, written)
                return written
            with self.transaction():
                self.write_state(commit, Written(version=1))
            self.die()
            with self.transaction():
                return self.write_rows(commit)

        def die(self):
            if self.count == at:
                os.kill(os.getpid(), signal.SIGKILL)

    return Dying


def main():
    mode, at, url, base_url = sys.argv[1:]
    if mode != "none":
        sqlite.SqliteWriter = dying(sqlite.SqliteWriter, mode, int(at))
        postgres.PostgresWriter = dying(postgres.PostgresWriter, mode, int(at))
    source = SourceConfig.model_validate(SOURCE)
    report = run_stream(source, source.streams[0], open_store(url), Client(source, base_url))
    sys.stdout.write(f"{report.rows} {report.not_modified}\n")


if __name__ == "__main__":
    main()
