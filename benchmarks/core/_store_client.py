"""One S3 client doing one thing many times; prints its own CPU microseconds an object. Run by path, by any Python."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

BUCKET = "bench"


def tidemill(url: str, key: str, secret: str) -> tuple[Callable[[str, bytes], Any], Callable[[str], Any]]:
    """Ours."""
    from tidemill_core.settings import StorageOptions
    from tidemill_core.storage import open_store

    options = StorageOptions(s3_endpoint_url=url, s3_access_key_id=key, s3_secret_access_key=secret)
    store = open_store(f"s3://{BUCKET}", options)
    return store.put, store.get


def boto3(url: str, key: str, secret: str) -> tuple[Callable[[str, bytes], Any], Callable[[str], Any]]:
    """AWS's own client; large bodies by its transfer manager."""
    import io

    import boto3 as aws
    from botocore.config import Config

    client = aws.client(
        "s3",
        "us-east-1",
        endpoint_url=url,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(max_pool_connections=64, s3={"addressing_style": "path"}),
    )

    def put(name: str, body: bytes) -> None:
        if len(body) > 16 << 20:
            client.upload_fileobj(io.BytesIO(body), BUCKET, name)
        else:
            client.put_object(Bucket=BUCKET, Key=name, Body=body)

    def get(name: str) -> bytes:
        body: bytes = client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return body

    return put, get


def obstore(url: str, key: str, secret: str) -> tuple[Callable[[str, bytes], Any], Callable[[str], Any]]:
    """The Rust binding."""
    import obstore as rust
    from obstore.store import S3Store

    store = S3Store(
        BUCKET,
        endpoint=url,
        access_key_id=key,
        secret_access_key=secret,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    return lambda name, body: rust.put(store, name, body), lambda name: rust.get(store, name).bytes()


def main(client: str, doing: str, count: int, size_bytes: int, threads: int) -> None:
    """Do it, and print the CPU time of this process for each object, imports and connecting left out."""
    put, get = {"tidemill": tidemill, "boto3": boto3, "obstore": obstore}[client](
        os.environ["BENCH_URL"], os.environ["BENCH_KEY"], os.environ["BENCH_SECRET"]
    )
    body = os.urandom(size_bytes)
    put("warm", body)

    def act(number: int) -> None:
        if doing == "put":
            put(f"{client}/{number}", body)
        elif len(get("warm")) != size_bytes:
            raise SystemExit("an object came short")

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(act, range(threads)))
        began = time.process_time()
        list(pool.map(act, range(count)))
        used = time.process_time() - began
    print(json.dumps({"cpu_us_per_object": used / count * 1e6}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
