"""Names of this package's Prometheus metrics; labels come from the configuration, never from data."""

from __future__ import annotations

from tidemill_core.telemetry.metrics import counter, gauge, histogram

REQUESTS = counter(
    "tidemill_ingest_api_http_requests_total", "Requests sent upstream, by answer.", ("source", "stream", "status")
)
REQUEST_SECONDS = histogram(
    "tidemill_ingest_api_http_request_seconds", "Time to an upstream answer.", ("source", "stream")
)
NOT_MODIFIED = counter("tidemill_ingest_api_not_modified_total", "Pages skipped because of 304.", ("source", "stream"))
RECORDS = counter("tidemill_ingest_api_records_total", "Records by what became of them.", ("source", "stream", "op"))
WAIT_SECONDS = counter(
    "tidemill_ingest_api_rate_limit_wait_seconds_total", "Time waited for upstream limits.", ("source",)
)
RETRIES = counter("tidemill_ingest_api_retries_total", "Requests sent again, by reason.", ("source", "reason"))
LAST_SUCCESS = gauge(
    "tidemill_ingest_api_last_success_timestamp_seconds",
    "When a stream was last fetched to its end.",
    ("source", "stream"),
)
CURSOR_LAG = gauge(
    "tidemill_ingest_api_cursor_lag_seconds",
    "Age of the newest record, by the stream's cursor field.",
    ("source", "stream"),
)

SERVED = counter("tidemill_ingest_api_served_requests_total", "Requests answered.", ("api", "route", "code"))
SERVE_SECONDS = histogram(
    "tidemill_ingest_api_served_request_seconds",
    "Time to answer a request.",
    ("api", "route"),
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
CACHE_HITS = counter("tidemill_ingest_api_served_cache_hits_total", "Pages answered from memory.")
CACHE_MISSES = counter("tidemill_ingest_api_served_cache_misses_total", "Pages read from the store.")
RATE_LIMITED = counter(
    "tidemill_ingest_api_served_rate_limited_total", "Requests refused by the rate limit.", ("key_id",)
)
ROWS = counter("tidemill_ingest_api_served_rows_total", "Rows sent to readers.", ("format",))
