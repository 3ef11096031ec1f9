"""What can go wrong with lineage itself; none of it ever reaches the pipeline that is traced.

LineageError
├── CaptureError        (Permanent) edges could not be read from a plan or a query
│   └── UnsupportedPlan (Permanent) a plan node or version we do not read
├── GraphError          (Permanent) a graph document or a query on it is wrong
│   ├── GraphMissing    (ConfigError) the file of a graph is not there
│   └── GraphDamaged    (Permanent) a document of ours was cut short or changed
├── EmitError           a graph store or endpoint refused
│   ├── EmitterDown     (Transient) not there, or too slow: try again
│   └── EmitRefused     (Permanent) it said no
└── StrictFailure       (Permanent) strict mode turns a counted error into this one
"""

from __future__ import annotations

from tidemill_core.errors import ConfigError, PermanentError, TidemillError, TransientError


class LineageError(TidemillError):
    """Base of every error of this package."""


class CaptureError(LineageError, PermanentError):
    """Edges could not be read from a plan or a query."""


class UnsupportedPlan(CaptureError):
    """A plan holds a node, an expression or a version that the walker does not read."""


class GraphError(LineageError, PermanentError):
    """A graph document, or a name asked of it, is wrong."""


class GraphMissing(GraphError, ConfigError):
    """The file that holds the graph is not there, or cannot be read."""


class GraphDamaged(GraphError):
    """A graph document was cut short or changed; it is set aside and built anew."""


class EmitError(LineageError):
    """A graph store or endpoint refused."""


class EmitterDown(EmitError, TransientError):
    """The other side is not there or too slow; the same call may succeed later."""

    def __init__(self, where: str, reason: str, retry_after_s: float | None = None) -> None:
        self.where, self.retry_after_s = where, retry_after_s
        super().__init__(f"{where} is not answering: {reason}; is it up?")


class EmitRefused(EmitError, PermanentError):
    """The other side said no."""

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        super().__init__(f"{where} refused the lineage: {reason}")


class StrictFailure(LineageError, PermanentError):
    """Strict mode: lineage failed, and the tests want to know."""
