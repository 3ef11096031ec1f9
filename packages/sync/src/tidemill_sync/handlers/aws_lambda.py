"""An AWS Lambda function that mirrors what S3 notifications name: ``tidemill_sync.handlers.aws_lambda.handler``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tidemill_sync.errors import EventsUndone
from tidemill_sync.handlers._work import configured, reconcile


def handler(event: Mapping[str, Any], context: object = None) -> dict[str, Any]:
    """Reconcile the keys of an event of S3, SNS, EventBridge or SQS.

    Args:
        event: What Lambda was called with.
        context: Lambda's own; not used.

    Returns:
        For SQS the messages that are not done, as ``ReportBatchItemFailures`` wants them;
        only the others are taken from the queue.

    Raises:
        EventsUndone: An event that is not from SQS is not done; Lambda calls again.
        TidemillError: Nothing is known to be done; all of it comes again.
    """
    del context
    config = configured()
    messages = [each for each in event.get("Records", ()) if each.get("eventSource") == "aws:sqs"]
    if messages:
        undone = reconcile(config, {each["messageId"]: _read(each["body"]) for each in messages})
        return {"batchItemFailures": [{"itemIdentifier": name} for name in undone]}
    if undone := reconcile(config, {"event": event}):
        raise EventsUndone(undone["event"])
    return {}


def _read(body: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body  # is told as unreadable, alone
