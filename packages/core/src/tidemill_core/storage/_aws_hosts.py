"""The hosts of S3: of buckets and access points, by region, partition, FIPS and dual stack."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tidemill_core.errors import ConfigError

_SUFFIXES = (
    ("cn-", "amazonaws.com.cn"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("us-iso-", "c2s.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("eusc-", "amazonaws.eu"),
)
_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_AWS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_HOST_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_ARN = re.compile(r"arn:(aws[a-z-]*):([a-z0-9-]+):([a-z0-9-]*):([0-9]*):(.+)")
_ACCESS_POINT = re.compile(r"accesspoint[/:]([a-z0-9][a-z0-9-]{1,48}[a-z0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A bucket, or an access point that stands for one; `region` and `account` are those of an access point."""

    name: str
    region: str | None = None
    account: str | None = None

    @property
    def copy_source(self) -> str:
        """What precedes a key in the header that names the source of a copy; an access point's needs its ARN."""
        return f"/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPoint(Bucket):
    """An access point by its ARN."""

    arn: str

    @property
    def copy_source(self) -> str:
        """The ARN, and the word that separates it from keys."""
        return f"{self.arn}/object"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What decides a host beside the bucket."""

    region: str
    endpoint_url: str | None = None
    is_fips: bool = False
    is_dual_stack: bool = False
    is_accelerated: bool = False
    is_virtual: bool | None = None
    """The bucket stands in the host's name; None chooses: not at an endpoint."""

    def moved(self, region: str) -> Site:
        """The same in another region."""
        return replace(self, region=region)


def split_url(url: str) -> tuple[Bucket, str]:
    """Read ``s3://bucket/prefix`` or ``s3://arn:aws:s3:region:account:accesspoint/name/prefix``.

    Raises:
        ConfigError: The bucket's name is none, or the ARN is of something that cannot be reached this way.
    """
    rest = url.removeprefix("s3://")
    if rest.startswith("arn:"):
        arn, _, prefix = rest.replace(":accesspoint/", ":accesspoint:", 1).partition("/")
        return access_point(url, arn), prefix.strip("/")
    name, _, prefix = rest.partition("/")
    if not name:
        raise ConfigError(f"{url!r} needs a bucket: s3://bucket/prefix")
    if not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(f"{url!r}: {name!r} is no bucket's name; they are of letters, digits, '.', '_' and '-'")
    if name.endswith("--x-s3"):
        raise ConfigError(f"{url!r} is a directory bucket (S3 Express), which is not supported; use a bucket of S3")
    return Bucket(name=name), prefix.strip("/")


def access_point(url: str, arn: str) -> AccessPoint:
    """Read the ARN of an access point.

    Raises:
        ConfigError: It is of another kind, or several regions'.
    """
    parts = _ARN.fullmatch(arn)
    name = parts and _ACCESS_POINT.fullmatch(parts[5])
    if parts and parts[2] == "s3" and not parts[3]:
        raise ConfigError(f"{url!r}: access points of several regions are not supported; use the one of a region")
    if not parts or not name or parts[2] != "s3" or not parts[4]:
        raise ConfigError(f"{url!r}: {arn!r} is no access point; write s3://arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME")
    whole = arn.replace(":accesspoint:", ":accesspoint/", 1)
    return AccessPoint(name=name[1], region=parts[3], account=parts[4], arn=whole)


def checked_region(region: str, where: str) -> str:
    """Return a region's name.

    Raises:
        ConfigError: It is no name; it would become part of a host.
    """
    if not _REGION.fullmatch(region):
        raise ConfigError(f"{where}: {region!r} is no region, such as eu-west-1")
    return "us-east-1" if region == "aws-global" else region


def is_region(text: str) -> bool:
    """Tell whether a server's text may be a region."""
    return bool(_REGION.fullmatch(text))


def base_url(url: str, bucket: Bucket, site: Site) -> str:
    """Choose the URL before every key.

    Raises:
        ConfigError: AWS has no bucket of such a name.
    """
    if bucket.account:
        return _access_point_url(url, bucket, site)
    if site.endpoint_url:
        if site.is_virtual:
            scheme, _, rest = site.endpoint_url.partition("://")
            return f"{scheme}://{bucket.name}.{rest}"
        return f"{site.endpoint_url}/{bucket.name}"
    if not _AWS_NAME.fullmatch(bucket.name):
        raise ConfigError(f"{url!r}: AWS has no bucket named {bucket.name!r}; names have 3 to 63 letters and digits")
    # A dotted name does not fit the certificate of *.s3.amazonaws.com, others fit no host at all.
    if site.is_virtual is False or not _HOST_NAME.fullmatch(bucket.name):
        return f"https://{_service('s3', site)}.{site.region}.{_suffix(site.region)}/{bucket.name}"
    if site.is_accelerated:
        middle = "s3-accelerate.dualstack" if site.is_dual_stack else "s3-accelerate"
        return f"https://{bucket.name}.{middle}.{_suffix(site.region)}"
    return f"https://{bucket.name}.{_service('s3', site)}.{site.region}.{_suffix(site.region)}"


def _access_point_url(url: str, bucket: Bucket, site: Site) -> str:
    label = f"{bucket.name}-{bucket.account}"
    if site.endpoint_url:
        scheme, _, rest = site.endpoint_url.partition("://")
        return f"{scheme}://{label}.{rest}"
    if site.is_accelerated:
        raise ConfigError(f"{url!r}: access points have no accelerated endpoint; unset use_accelerate_endpoint")
    region = bucket.region or site.region
    return f"https://{label}.{_service('s3-accesspoint', site)}.{region}.{_suffix(region)}"


def _service(name: str, site: Site) -> str:
    return name + ("-fips" if site.is_fips else "") + (".dualstack" if site.is_dual_stack else "")


def _suffix(region: str) -> str:
    return next((suffix for prefix, suffix in _SUFFIXES if region.startswith(prefix)), "amazonaws.com")
