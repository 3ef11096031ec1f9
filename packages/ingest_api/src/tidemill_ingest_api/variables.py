"""The variables of the environment that ingest reads."""

from tidemill_core.variables import Variable

STORE = "TIDEMILL_INGEST_STORE"
VARIABLES = (
    Variable(
        name=STORE,
        text="Where `tidemill ingest` keeps rows, as ``--store``; unset means the configured or embedded PostgreSQL.",
        is_secret=True,
    ),
)
