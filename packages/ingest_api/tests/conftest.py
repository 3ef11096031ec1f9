"""Property tests of this package judge results, not speed: a loaded machine must not fail them."""

from hypothesis import settings

settings.register_profile("ingest_api", deadline=None)
settings.load_profile("ingest_api")
