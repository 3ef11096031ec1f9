"""Write the boards of the services from the table below; `dagster.json` is kept by hand.

python deploy/grafana/write.py           # writes boards/*.json
python deploy/grafana/write.py --check   # exit code 1 if one is not current
"""

import json
import sys
from pathlib import Path
from typing import Any

BOARDS = Path(__file__).parent / "boards"
PANELS: dict[str, list[tuple[str, str, str, str]]] = {
    # title, unit, legend, expression
    "ingest": [
        (
            "Answers per second",
            "reqps",
            "{{code}}",
            "sum by (code) (rate(tidemill_ingest_api_served_requests_total[$__rate_interval]))",
        ),
        (
            "Answer time, 99th percentile",
            "s",
            "{{route}}",
            "histogram_quantile(0.99, sum by (le, route) (rate(tidemill_ingest_api_served_request_seconds_bucket[$__rate_interval])))",
        ),
        (
            "Rows sent per second",
            "rowsps",
            "{{format}}",
            "sum by (format) (rate(tidemill_ingest_api_served_rows_total[$__rate_interval]))",
        ),
        (
            "Pages from memory",
            "percentunit",
            "share",
            "sum(rate(tidemill_ingest_api_served_cache_hits_total[$__rate_interval])) / (sum(rate(tidemill_ingest_api_served_cache_hits_total[$__rate_interval])) + sum(rate(tidemill_ingest_api_served_cache_misses_total[$__rate_interval])))",
        ),
        (
            "Refused by the rate limit, per second",
            "reqps",
            "{{key_id}}",
            "sum by (key_id) (rate(tidemill_ingest_api_served_rate_limited_total[$__rate_interval]))",
        ),
        (
            "Requests upstream per second",
            "reqps",
            "{{source}} {{status}}",
            "sum by (source, status) (rate(tidemill_ingest_api_http_requests_total[$__rate_interval]))",
        ),
        (
            "Upstream answer time, 95th percentile",
            "s",
            "{{source}}",
            "histogram_quantile(0.95, sum by (le, source) (rate(tidemill_ingest_api_http_request_seconds_bucket[$__rate_interval])))",
        ),
        (
            "Since a stream was fetched to its end",
            "s",
            "{{source}}/{{stream}}",
            "time() - tidemill_ingest_api_last_success_timestamp_seconds",
        ),
    ],
    "stream": [
        ("Lag", "short", "{{pipeline}}", "sum by (pipeline) (tidemill_stream_lag_records)"),
        (
            "Records per second",
            "short",
            "{{pipeline}}",
            "sum by (pipeline) (rate(tidemill_stream_records_consumed_total[$__rate_interval]))",
        ),
        (
            "Rows written per second",
            "rowsps",
            "{{pipeline}} {{sink}}",
            "sum by (pipeline, sink) (rate(tidemill_stream_rows_written_total[$__rate_interval]))",
        ),
        (
            "Invalid per second",
            "short",
            "{{pipeline}} {{reason}}",
            "sum by (pipeline, reason) (rate(tidemill_stream_invalid_total[$__rate_interval]))",
        ),
        (
            "Late, filtered, dead letters per second",
            "short",
            "{{pipeline}} {{__name__}}",
            'sum by (pipeline, __name__) (rate({__name__=~"tidemill_stream_late_total|tidemill_stream_filtered_total|tidemill_stream_dlq_total"}[$__rate_interval]))',
        ),
        (
            "Watermark delay",
            "s",
            "{{pipeline}}/{{partition}}",
            "max by (pipeline, partition) (tidemill_stream_watermark_delay_seconds)",
        ),
        ("Since the last commit", "s", "{{pipeline}}", "tidemill_stream_checkpoint_age_seconds"),
        (
            "Commit time, 95th percentile",
            "s",
            "{{pipeline}}",
            "histogram_quantile(0.95, sum by (le, pipeline) (rate(tidemill_stream_checkpoint_duration_seconds_bucket[$__rate_interval])))",
        ),
        ("From Kafka to commit", "s", "{{pipeline}}", "tidemill_stream_end_to_end_latency_seconds"),
        ("Open windows", "short", "{{pipeline}}", "sum by (pipeline) (tidemill_stream_state_keys)"),
        (
            "Rebalances and fenced commits per hour",
            "short",
            "{{pipeline}}",
            "sum by (pipeline) (increase(tidemill_stream_rebalances_total[1h]) + increase(tidemill_stream_fenced_total[1h]))",
        ),
    ],
    "sync": [
        ("Runs per hour", "short", "{{state}}", "sum by (state) (increase(tidemill_sync_runs_total[1h]))"),
        (
            "Objects per second",
            "short",
            "{{outcome}}",
            "sum by (outcome) (rate(tidemill_sync_objects_total[$__rate_interval]))",
        ),
        ("Bytes per second", "Bps", "copied", "sum(rate(tidemill_sync_bytes_total[$__rate_interval]))"),
        (
            "Time of a run, 95th percentile",
            "s",
            "seconds",
            "histogram_quantile(0.95, sum by (le) (rate(tidemill_sync_run_seconds_bucket[1h])))",
        ),
        (
            "Failed objects per hour",
            "short",
            "failed",
            'sum(increase(tidemill_sync_objects_total{outcome="failed"}[1h]))',
        ),
    ],
}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def board(service: str) -> dict[str, Any]:
    """Lay out a service's panels, three in a row."""
    panels = [
        {
            "id": number + 1,
            "title": title,
            "type": "timeseries",
            "gridPos": {"x": number % 3 * 8, "y": number // 3 * 8, "w": 8, "h": 8},
            "datasource": SOURCE,
            "targets": [{"expr": expression, "legendFormat": legend, "refId": "A", "datasource": SOURCE}],
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        }
        for number, (title, unit, legend, expression) in enumerate(PANELS[service])
    ]
    choice = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": f"tidemill-{service}",
        "title": f"Tidemill: {service}",
        "tags": [service, "tidemill"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [choice]},
        "panels": panels,
    }


def main() -> int:
    """Write the boards, or compare them."""
    stale = 0
    for service in PANELS:
        path, text = BOARDS / f"{service}.json", json.dumps(board(service), indent=2) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"{path.name} is not current; run python deploy/grafana/write.py", file=sys.stderr)
            stale += 1
    return min(stale, 1)


if __name__ == "__main__":
    sys.exit(main())
