"""Column edges as Dagster metadata: its own column lineage, and ours that tells direct from indirect."""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from tidemill_lineage.model import ASSET_SCHEME, DatasetUrn, Edge, column_urn


def column_metadata(
    edges: Iterable[Edge], *, assets: Mapping[DatasetUrn, dg.AssetKey] | None = None, method: str = ""
) -> dict[str, Any]:
    """Describe the edges of one asset.

    Dagster's `TableColumnLineage` has no kinds: it gets the edges that end in a column.
    ``tidemill/column_lineage`` has all of them, those that decide rows under ``*``.

    Args:
        edges: Edges to one output.
        assets: Asset keys of inputs that are not named ``asset://key``.
        method: How the edges were found.
    """
    ours: dict[str, list[dict[str, str]]] = {}
    deps: dict[str, list[dg.TableColumnDep]] = {}
    for edge in sorted(edges):
        source = column_urn(edge.source, edge.source_column).removeprefix(ASSET_SCHEME)
        known = {"from": source, "kind": edge.kind, "subtype": edge.subtype, "method": edge.method}
        ours.setdefault(edge.target_column or "*", []).append(known)
        key = (assets or {}).get(edge.source) or _asset_key(edge.source)
        if key is not None and edge.source_column and edge.target_column:
            dep = dg.TableColumnDep(asset_key=key, column_name=edge.source_column)
            if dep not in deps.setdefault(edge.target_column, []):
                deps[edge.target_column].append(dep)
    metadata: dict[str, Any] = {"tidemill/column_lineage": dg.MetadataValue.json(ours)}
    if deps:
        metadata["dagster/column_lineage"] = dg.TableColumnLineage(deps_by_column=deps)
    return metadata | ({"tidemill/lineage_method": method} if method else {})


def _asset_key(urn: DatasetUrn) -> dg.AssetKey | None:
    return dg.AssetKey(urn.removeprefix(ASSET_SCHEME).split("/")) if urn.startswith(ASSET_SCHEME) else None
